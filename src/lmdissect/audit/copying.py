"""What a rewrite copies, what it puts in another word's place, and how much of the sentence frame it leaves standing."""

from difflib import SequenceMatcher

from lmdissect.audit.words import all_stems, is_function_word, stem, word_tokens

__all__ = ["copying_measures", "count_content_words"]

_MAX_SPAN = 6
"""A run of at most so many words with a counterpart of at most so many is a replacement; a longer one is a sentence told anew."""
_MIN_CONTENT_LETTERS = 3
_MAX_WORDS = 5_000
"""Words of a text that are aligned; aligning takes time with the square of their number where words repeat."""


def copying_measures(original: str, variant: str) -> dict[str, float]:
    """Align the words of two plain texts (difflib on lower-case words, autojunk off) and say what was kept.

        kept_word_share        = words of the original kept in order / words of the original
        copied_word_share      = the same words / words of the variant
        longest_copied_run     = words of the longest run kept
        frame_kept_share       = function words of the original kept in order / function words of the original
        replaced_content_share = content words of the original inside short replaced runs and nowhere in the variant / content words of the original
        content_kept_share     = distinct content stems of both / those of the original
        content_copied_share   = distinct content stems of both / those of the variant

    Of longer texts the first 5,000 words are aligned. A change of facts or topic puts other content into the same frame; a change of style, and a
    paraphrase, rebuild the frame. Shares without a denominator are left out.
    """
    left, right = ([word.casefold() for word in word_tokens(text)[:_MAX_WORDS]] for text in (original, variant))
    if not left or not right:
        return {}
    matcher = SequenceMatcher(None, left, right, autojunk=False)
    blocks = matcher.get_matching_blocks()
    num_kept = sum(block.size for block in blocks)
    kept = {index for block in blocks for index in range(block.a, block.a + block.size)}
    frame = [index for index, word in enumerate(left) if word[0].isalpha() and not _carries_content(word)]
    content = [index for index, word in enumerate(left) if _carries_content(word)]
    replaced = [index for start, end in _short_replacements(matcher) for index in range(start, end) if _carries_content(left[index])]
    still_there = all_stems(variant)
    found = {
        "kept_word_share": num_kept / len(left),
        "copied_word_share": num_kept / len(right),
        "longest_copied_run": float(max(block.size for block in blocks)),
    }
    if frame:
        found["frame_kept_share"] = sum(index in kept for index in frame) / len(frame)
    if content:
        found["replaced_content_share"] = sum(stem(left[index]) not in still_there for index in replaced) / len(content)
    return found | _overlap({stem(left[index]) for index in content}, {stem(word) for word in right if _carries_content(word)})


def count_content_words(text: str) -> int:
    """Content words of a plain text, of those that are aligned."""
    return sum(_carries_content(word) for word in word_tokens(text)[:_MAX_WORDS])


def _short_replacements(matcher: "SequenceMatcher[str]") -> list[tuple[int, int]]:
    return [(i1, i2) for tag, i1, i2, j1, j2 in matcher.get_opcodes() if tag == "replace" and max(i2 - i1, j2 - j1) <= _MAX_SPAN]


def _overlap(left: set[str], right: set[str]) -> dict[str, float]:
    common = len(left & right)
    return ({"content_kept_share": common / len(left)} if left else {}) | ({"content_copied_share": common / len(right)} if right else {})


def _carries_content(word: str) -> bool:
    return len(word) >= _MIN_CONTENT_LETTERS and word[0].isalpha() and not is_function_word(word)
