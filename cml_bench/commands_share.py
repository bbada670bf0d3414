"""Commands that hand runs on: a study's records as one file, and back."""

from argparse import Namespace
from pathlib import Path

from cml_bench.command_line import CONFIG, RESULTS, SET, Commands, argument

COMMANDS = Commands()


@COMMANDS.command(
    "export",
    CONFIG,
    SET,
    RESULTS,
    argument("--out", type=Path, required=True, help="file to write, such as study.zip"),
    argument("--weights", action="store_true", help="the models, too"),
    help="Write a study's finished runs, its configuration and their digests into one file.",
    example="python -m cml_bench export --config configs/demo.yaml --out demo.zip",
)
def export(args: Namespace) -> None:
    from cml_bench.records import Store
    from cml_bench.study import bundle, config, plan, selection

    content, where = config.merged(args.config, args.set), ", ".join(map(str, args.config))
    resolved = plan.cached(content, where)
    results = args.results or Path(resolved.study.results)
    resolved = selection.narrowed(resolved, Store(results))
    made = bundle.write(resolved, content, results, args.out, args.weights)
    left = f" ({made.left} more are not finished)" if made.left else ""
    kind = "with" if args.weights else "without"
    print(
        f"{args.out}: {made.runs} finished runs of {resolved.study.study}{left}, {kind} weights,"
        f" {made.size / 1e6:.1f} MB\nsha256 {made.sha256}"
    )


@COMMANDS.command(
    "import",
    argument("bundle", type=Path, help="a file that `export` wrote"),
    argument("--results", type=Path, default=Path("results"), help="default: results"),
    help="Verify a file of `export` and put its runs into a results folder: all, or none.",
    example="python -m cml_bench import demo.zip --results results",
)
def import_(args: Namespace) -> None:
    from cml_bench.study import bundle

    made = bundle.read_in(args.bundle, args.results)
    new, digest = made.runs - made.there, bundle.digest_of(args.bundle)
    print(f"{args.bundle}: {made.runs} runs of {made.contents.study}, sha256 {digest}")
    print(f"{new} are new in {args.results / 'runs'}, {made.there} were there already")
    if made.without_weights:
        print(
            f"{made.without_weights} of these have weights in the bundle and none here: move their"
            " folders away and import again to have them"
        )
    print(f"configuration: {made.configuration}")
    if made.plugins:
        print(
            f"it names plug-ins that are not in the bundle: {', '.join(made.plugins)}. Put them"
            " there before you use it."
        )
