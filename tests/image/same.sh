# shellcheck shell=bash
# The builder's promises about what it makes. Sourced by run.
# shellcheck disable=SC2154 # what is not set here is set by run

part_same() {
    mv "$images/0.1.0" "$images/first" && rm "$images/0.1.0.json"
    check 'it is built once more' image 0.1.0
    check 'and is the same bytes' cmp "$images/first/lookback-$board-0.1.0.img" "$(image_of 0.1.0)"
    check 'its hashes are right' hashes_are_right
    holds 'it is said how large it is' "$images/0.1.0/build.json" "rows[0]['board'] == '$board' and rows[0]['root_bytes'] > 0 and len(rows[0]['root_hash']) == 64"
    check 'what it is made of is listed' made_of
    refuses 1 'qemu-arm64' 'another board is refused' "$repository/image-build/build" --board toaster
    refuses 1 'three numbers' 'and a version that is none' "$repository/image-build/build" --board "$board" --agent "${LOOKBACK_IMAGE_AGENT:-$lookback}" --version new
    refuses 1 'no program for' 'and a program for another processor' "$repository/image-build/build" --board "$board" --agent "$0"
    rm -rf "$images/first"
}

hashes_are_right() { (cd "$images/0.1.0" && sha256sum --check --quiet SHA256SUMS); }

made_of() {
    python3 - "$images/0.1.0/sbom.cdx.json" <<'END'
import json, sys
told = json.load(open(sys.argv[1]))
assert told["bomFormat"] == "CycloneDX" and told["specVersion"] == "1.5"
names = {component["purl"].split("@")[0] for component in told["components"]}
assert {"pkg:cargo/tract-core", "pkg:cargo/lookback", "pkg:deb/debian/systemd", "pkg:deb/debian/rauc"} <= names, len(names)
assert any(name.startswith("pkg:deb/debian/linux-image-") for name in names)
refs = [component["bom-ref"] for component in told["components"]]
assert len(refs) == len(set(refs))
print(f"{len(refs)} components")
END
}
