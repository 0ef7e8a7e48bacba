"""`python -m trimtab_classifier train --data DIR --out FILE`, `... card --model FILE`, `... eval --train DIR`."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

PARTS = ("mmlu", "math", "llmrouter", "bbh", "mix", "cascade", "letters", "class")


def _train(arguments: argparse.Namespace) -> int:
    from trimtab_classifier import train

    metadata = train.run(train.Settings(arguments.data, arguments.out, arguments.prompts_per_class, arguments.epochs))
    sys.stdout.write(json.dumps(metadata, indent=2, ensure_ascii=False) + "\n")
    return 0


def _card(arguments: argparse.Namespace) -> int:
    from trimtab_classifier import card

    sys.stdout.write(f"{card.write(arguments.model)}\n")
    return 0


def _eval(arguments: argparse.Namespace) -> int:
    from trimtab_classifier.evaluation import run
    from trimtab_classifier.evaluation.splits import Folders

    if arguments.plots is not None:
        # What is missing is better said before minutes of training than after them.
        import trimtab_classifier.evaluation.plots  # noqa: F401
    test = arguments.test
    same = test is not None and test.resolve() == arguments.train.resolve()
    folders = Folders(arguments.train, None if same else test)
    results = run.evaluate(folders, arguments.only or list(run.PARTS))
    sys.stdout.write(run.write(results, folders, arguments.json, arguments.plots) + "\n")
    return 0


def _curves(arguments: argparse.Namespace) -> int:
    from trimtab_classifier.evaluation import budgets

    sys.stdout.write(budgets.run(arguments.data, arguments.out, arguments.json) + "\n")
    return 0


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="trimtab_classifier", description="Train and judge the packaged classifier.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    train = commands.add_parser("train", help="train on labelled rows and write the ONNX file and its metadata")
    train.add_argument("--data", type=Path, required=True, help="folder of labelled queries")
    train.add_argument("--out", type=Path, required=True, help="ONNX file to write; FILE.json is written beside it")
    train.add_argument("--prompts-per-class", type=_count, default=3_000, help="synthetic prompts of each class")
    train.add_argument("--epochs", type=_count, default=8, help="passes over the examples")
    train.set_defaults(run=_train)
    card = commands.add_parser("card", help="write the model card (data, licences, figures) beside a trained model")
    card.add_argument("--model", type=Path, required=True, help="ONNX file with FILE.json beside it")
    card.set_defaults(run=_card)
    judge = commands.add_parser("eval", help="judge routing on labelled rows, against baselines")
    judge.add_argument("--train", type=Path, required=True, help="folder to learn from")
    judge.add_argument("--test", type=Path, help="folder to judge on; five folds of --train when absent or the same")
    judge.add_argument("--json", type=Path, help="file for the figures")
    judge.add_argument("--plots", type=Path, help="folder for cost-quality pictures (PNG) and a page (index.html)")
    judge.add_argument("--only", action="append", choices=PARTS, help="one part; may be given several times")
    judge.set_defaults(run=_eval)
    curves = commands.add_parser("curves", help="fit accuracy against spent compute, class by class")
    curves.add_argument("--data", type=Path, required=True, help="folder of labelled queries")
    curves.add_argument("--json", type=Path, help="file for the points, forms and worths")
    curves.add_argument("--out", type=Path, help="file for the curves that may be packaged")
    curves.set_defaults(run=_curves)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; 2 and a message on bad input."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except ImportError as error:
        sys.stderr.write(f"error: {error.name} is not installed; install trimtab with the extra train\n")
        return 2
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2


if __name__ == "__main__":
    raise SystemExit(main())
