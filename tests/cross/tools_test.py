"""What cross/ is made of: the compiler's wrapper, the gates, and the settings for docker."""

import json
import os
import re
import subprocess
import tempfile
import tomllib
import unittest
from pathlib import Path

CROSS = Path(__file__).resolve().parents[2] / "cross"

SETTINGS = dict(
    (name, value.strip("'"))
    for name, value in re.findall(r"^([A-Z_]+)=(.*)$", (CROSS / "settings").read_text(), re.MULTILINE)
)


class Docker(unittest.TestCase):
    """Cross.toml and the Dockerfile say what cross/settings says."""

    cross = tomllib.loads((CROSS / "Cross.toml").read_text())
    dockerfile = (CROSS / "Dockerfile").read_text()

    def test_target_is_the_same(self):
        triple = SETTINGS["TRIPLE"]
        self.assertEqual(self.cross["build"]["default-target"], triple)
        self.assertEqual(list(self.cross["target"]), [triple])

    def test_floor_is_the_same(self):
        self.assertEqual(self.arguments()["GLIBC_FLOOR"], SETTINGS["GLIBC_FLOOR"])

    def test_features_are_those_of_the_program(self):
        features = SETTINGS["FEATURES"].split()
        self.assertEqual(self.arguments()["FEATURES"].split(), features)
        manifest = tomllib.loads((CROSS.parent / "edge-agent/agent/Cargo.toml").read_text())
        self.assertEqual(["cpu", *manifest["features"]], features)

    def test_every_argument_reaches_the_image(self):
        for name in self.arguments():
            self.assertRegex(self.dockerfile, rf"(?m)^ARG {name}$")
            self.assertRegex(self.dockerfile, rf"\"?\${name}\b")

    def test_zig_is_the_pinned_one_behind_the_same_wrapper(self):
        table = self.cross["target"][SETTINGS["TRIPLE"]]["dockerfile"]
        self.assertEqual((table["file"], table["context"]), ("cross/Dockerfile", "cross"))
        self.assertIn("COPY zig.txt zigcc /opt/lookback/\n", self.dockerfile)
        self.assertRegex(self.dockerfile, r"(?s)--require-hashes.*-r /opt/lookback/zig\.txt")
        self.assertNotIn("ziglang==", self.dockerfile)

    def test_cargo_and_build_scripts_are_told_of_every_tool(self):
        name = SETTINGS["TRIPLE"].replace("-", "_")
        tools = {f"CARGO_TARGET_{name.upper()}_LINKER": "cc", f"CC_{name}": "cc", f"CXX_{name}": "c++"}
        tools |= {f"AR_{name}": "ar", f"RANLIB_{name}": "ranlib"}
        for variable, tool in tools.items():
            self.assertRegex(self.dockerfile, rf"(?m)^    {variable}=/opt/lookback/bin/{re.escape(tool)}( \\)?$")

    def arguments(self):
        return self.cross["target"][SETTINGS["TRIPLE"]]["dockerfile"]["build-args"]


class Wrapper(unittest.TestCase):
    """cross/zigcc says to zig what was said for GCC."""

    def said(self, *arguments, name="cc"):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / name).symlink_to(CROSS / "zigcc")
            environment = os.environ | {"ZIG": "echo", "GLIBC_FLOOR": "2.35"}
            return subprocess.run(
                [f"{folder}/{name}", *arguments], env=environment, capture_output=True, text=True, check=False
            )

    def translated(self, *arguments):
        before = "cc -target aarch64-linux-gnu.2.35 -fno-sanitize=all"
        words = self.said(*arguments).stdout.strip()
        self.assertTrue(words.startswith(before), words)
        return words.removeprefix(before).strip()

    def test_names_of_cpus_are_zigs(self):
        for gcc, zig in {
            "-march=armv8.2-a+sve": "-mcpu=generic+v8_2a+sve",
            "-march=armv8.2-a+sve+fp16": "-mcpu=generic+v8_2a+sve+fullfp16",
            "-march=armv8-a+crypto": "-mcpu=generic+aes+sha2",
            "-march=armv9.2-a+nosve": "-mcpu=generic+v9_2a-sve",
            "-mcpu=cortex-a55": "-mcpu=cortex_a55",
            "-mtune=cortex-a76+simd": "-mtune=cortex_a76+neon",
        }.items():
            self.assertEqual(self.translated(gcc), zig)

    def test_target_is_named_once_and_gccs_unwinder_not_at_all(self):
        self.assertEqual(self.translated("--target=aarch64-unknown-linux-gnu", "-lgcc_s", "-O2"), "-lunwind -O2")

    def test_arguments_keep_their_spaces(self):
        self.assertEqual(self.translated("-DA=a  b"), "-DA=a  b")

    def test_archiver_is_zigs(self):
        self.assertEqual(self.said("crs", "x.a", name="ar").stdout, "ar crs x.a\n")

    def test_what_it_does_not_know_it_refuses(self):
        for answer in (self.said("-march=armv7-m"), self.said(name="ld")):
            self.assertNotEqual(answer.returncode, 0)
            self.assertIn("zigcc: ", answer.stderr)


class Gates(unittest.TestCase):
    """cross/gates lets nothing through that would not run on a board."""

    kernels = ("tract_arm64_dotprod", "tract_sme", "tract_sve", "tract_sve_fp16")

    def judged(self, glibc=("2.17", "2.34"), needed=("libc.so.6", "libm.so.6"), kernels=kernels, out="aarch64-x"):
        script = {
            "reason": "build-script-executed",
            "package_id": "registry+x#tract-linalg@0.23.9",
            "out_dir": f"/target/{out}/release/build/tract-linalg-0/out",
            "cfgs": list(kernels),
            "linked_libs": ["static=arm64simd_0_23_9", "static=arm64fp16_0_23_9"],
        }
        readelf = [f" 0x1 (NEEDED)   Shared library: [{name}]" for name in needed]
        readelf += [f"  0x0010:   Name: GLIBC_{version}  Flags: none  Version: 3" for version in glibc]
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "cargo").write_text(json.dumps(script) + "\n")
            (Path(folder) / "readelf").write_text("\n".join(readelf))
            command = [CROSS / "gates", "--floor", "2.35", "--cargo", f"{folder}/cargo", f"lookback={folder}/readelf"]
            return subprocess.run(command, capture_output=True, text=True, check=False)

    def refused(self, word, **found):
        answer = self.judged(**found)
        self.assertEqual(answer.returncode, 1, answer.stderr)
        self.assertIn(word, answer.stderr)

    def test_good_program_passes_and_is_described(self):
        answer = self.judged(glibc=("2.9", "2.35", "2.17"))
        self.assertEqual((answer.returncode, answer.stderr), (0, ""))
        self.assertEqual(
            json.loads(answer.stdout),
            {
                "kernels": sorted([*self.kernels, "arm64fp16"]),
                "programs": {"lookback": {"glibc": "2.35", "needed": ["libc.so.6", "libm.so.6"]}},
            },
        )

    def test_newer_glibc_is_refused(self):
        self.refused("glibc 2.36", glibc=("2.17", "2.36"))

    def test_another_library_is_refused(self):
        self.refused("libgcc_s.so.1", needed=("libc.so.6", "libgcc_s.so.1"))

    def test_missing_kernels_are_refused(self):
        self.refused("tract_sve_fp16", kernels=self.kernels[:3])

    def test_kernels_of_this_machine_do_not_count(self):
        self.assertEqual(json.loads(self.judged(out="release/x86").stdout)["kernels"], [])

    def test_what_is_no_program_is_refused(self):
        self.refused("is this a program", glibc=())


if __name__ == "__main__":
    unittest.main()
