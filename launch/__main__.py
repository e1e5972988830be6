"""Lists the commands: ``python -m launch``."""

import ast
import pathlib


def commands() -> dict[str, str]:
    """The programs of this folder, by name, and what each does in a line."""
    found = {}
    for path in sorted(pathlib.Path(__file__).parent.glob("*.py")):
        source = path.read_text(encoding="utf-8")
        if path.stem != "__main__" and "\n    command.run(main" in source:
            doc = ast.get_docstring(ast.parse(source)) or ""
            found[f"launch.{path.stem}"] = doc.partition("\n\n")[0].replace("\n", " ")
    return found


def main() -> None:
    """Prints the commands."""
    listed = commands()
    width = max(map(len, listed))
    print("usage: python -m COMMAND [--help]\n")
    for name, text in listed.items():
        print(f"  {name.ljust(width)}  {text}")


if __name__ == "__main__":
    main()
