"""`holds.py FILE EXPRESSION`: exit code 0 if EXPRESSION is true of `rows`.

`rows` are the JSON values in the lines of FILE, each line one value; anything else is an error.
"""

import json
import math
import sys


def main() -> int:
    """Evaluates the expression; says what was there if it is false."""
    path, expression = sys.argv[1:3]
    rows = []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                print(f"line {number} of {path} is not one JSON value ({error}): {line[:300]!r}")
                return 1
    names = {"rows": rows, "math": math}
    if eval(f"({expression}\n)", names):  # our own scripts are the only callers
        return 0
    print(f"not true: {expression}\n{len(rows)} rows")
    for row in rows[:8]:
        print(json.dumps(row)[:1500])
    return 1


sys.exit(main())
