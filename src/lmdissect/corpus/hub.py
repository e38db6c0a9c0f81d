"""Records of a Hugging Face dataset, streamed: nothing but what is read is fetched."""

from collections.abc import Iterator

from lmdissect.corpus.sources import parse_hub
from lmdissect.errors import LmdissectError, UnreadableInputError

__all__ = ["read_hub_rows"]


def read_hub_rows(argument: str) -> Iterator[tuple[str, object]]:
    """Records of one split with where they stand.

    Args:
        argument: ``hub:NAME[@REVISION][:[CONFIG/]SPLIT]``, where NAME is a hub id or a folder.

    Raises:
        UnreadableInputError: There is no such dataset or split, or the connection broke off; the records before are not kept then, so that a source
            is whole or not there.
    """
    import datasets  # noqa: PLC0415 - takes seconds to load

    dataset = parse_hub(argument)
    try:
        rows = datasets.load_dataset(dataset.name, dataset.config, split=dataset.split, revision=dataset.revision, streaming=True)
        for number, fields in enumerate(rows, start=1):
            yield f"row {number}", dict(fields)
    except LmdissectError:  # Ctrl-C
        raise
    except Exception as error:  # the hub's client raises errors of many libraries, all of which mean the same here
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        message = f"{argument}: cannot be read as a Hugging Face dataset: {reason}; check name, split and connection, and run the same command again"
        raise UnreadableInputError(message) from error
