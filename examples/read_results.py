"""Open what a comparison left on disk, and look at it as data frames.

    lmdissect demo --out runs/demo
    python examples/read_results.py runs/demo/biomedical

Of other results (a study, a cloze, a calibration, an experiment) it says which tables there are, and of a study what may be said.
The notebook beside this file does the same for a comparison, with a figure. Needs pandas (which comes with lmdissect).
"""

import sys

from lmdissect.errors import LmdissectError
from lmdissect.results import Results, open_results


def main(folder: str) -> None:
    """Say what moved, by how much, and what could not be measured."""
    results = open_results(folder)
    print(results)
    if results.kind == "shift":
        print_shifts(results)
        print_losses(results)
    for row in results.statements if "statements" in results.tables else ():
        print(f"{row['verdict']}: {row['sentence']}")
    for check, found in results.details.get("checks", {}).items():
        print(f"{'ok    ' if found['passed'] else 'FAILED'} {check}: {found['text']}")
    for row in results.unavailable:
        where = ", ".join(str(value) for name, value in row.items() if name != "reason" and value is not None)
        print(f"not computed: {where}: {row['reason']}")


def print_shifts(results: Results) -> None:
    """Shift of every variant per token, against the original and net of the control."""
    frame = results.shifts.where(normalization="token").to_pandas()
    frame["interval"] = [f"{low:+.4f} to {high:+.4f}" for low, high in zip(frame.ci_low, frame.ci_high, strict=True)]
    columns = ["factor", "variant", "reference", "estimate", "interval", "p_holm", "num_documents"]
    print(f"\nshift in nats per token, {results.details['level']:.0%} intervals over documents")
    print(frame[columns].round(4).to_string(index=False), "\n")


def print_losses(results: Results) -> None:
    """Loss of every split under both models."""
    frame = results.losses.to_pandas().set_index("variant")
    frame["change"] = frame.tuned_loss_nats - frame.base_loss_nats
    print("loss in nats per token, pooled over all tokens")
    print(frame[["base_loss_nats", "tuned_loss_nats", "change"]].round(4).to_string(), "\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("give the folder of a comparison: python examples/read_results.py runs/demo/biomedical")
    try:
        main(sys.argv[1])
    except LmdissectError as error:
        sys.exit(str(error))
