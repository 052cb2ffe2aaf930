"""`drawing.py FILE`: exit code 0 if FILE is a self-contained SVG drawing."""

import sys
import xml.etree.ElementTree as ElementTree


def main() -> int:
    """Parses the file; names the first thing that a drawing must not have."""
    root = ElementTree.parse(sys.argv[1]).getroot()
    if not root.tag.endswith("}svg") or "viewBox" not in root.attrib:
        print(f"the root is {root.tag} with {sorted(root.attrib)}")
        return 1
    if len(list(root.iter())) < 20:
        print("there is hardly anything in it")
        return 1
    for element in root.iter():
        for name, value in element.attrib.items():
            outside = name.endswith("href") and not value.startswith(("data:", "#"))
            if outside or name.startswith("on") or element.tag.endswith("}script"):
                print(f"{element.tag} has {name}={value[:80]}")
                return 1
    return 0


sys.exit(main())
