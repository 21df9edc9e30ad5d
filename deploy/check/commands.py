#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares what the project uses with the table of deploy/install-packages.sh.

Commands of the Makefiles and shell scripts, programs that tests start, headers that C and C++ files include, and the
pkg-config modules and packages of Package.swift must each be in the table, or belong to every Debian system. Packages of the
build and the tests must be in docs/dependencies.md. It prints what is missing, one per line.

    deploy/check/commands.py            checks
    deploy/check/commands.py --used     prints the commands that it found, and where
    deploy/check/commands.py --scan TEXT     prints the commands of a script's text
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# From packages that Debian marks essential or required: every root has them.
EVERYWHERE = set(
    """apt-config apt-get awk base64 basename bash cat chmod chown chroot cmp cp cut date dd df diff dirname dpkg dpkg-deb
    dpkg-query du env expand expr false find getent grep gzip head id install ldconfig ldd ln ls md5sum mkdir mktemp mount mv nproc
    nsenter od paste readlink realpath rm rmdir sed seq setsid sh sha256sum sleep sort stat tail tar taskset tee test timeout touch tr true
    uname uniq unshare update-ca-certificates wc xargs""".split()
)
# The toolchain, what the project builds itself, optional tools of a script, and what the Debian package's dependencies bring
# to the machine that installs it.
OTHERWISE = set("swift swiftc clang clang++ switchyard docker dockerd kubectl kustomize systemctl systemd-sysusers".split())
BUILTINS = set(
    """. : [ [[ break cd command continue declare echo eval exec exit export false kill local popd printf pushd pwd read readonly
    return set shift source test trap true type ulimit umask unset wait""".split()
)
# Commands that take a command as an argument, and how many words come before it, besides options.
WRAPPERS = {"exec": 0, "env": 0, "command": 0, "setsid": 0, "timeout": 1, "xargs": 0, "nohup": 0, "inside": 0, "contained": 0, "chroot": 1}
OPENERS = {"if", "then", "else", "elif", "do", "while", "until", "!", "{", "time"}
CLOSERS = {"fi", "done", "esac", "}", ";;"}
# From the C library, the compiler and Linux.
STANDARD_HEADER = re.compile(r"(std\w+|math|string|sched|unistd|dlfcn|execinfo|signal|sys/\w+|immintrin|cpuid|pthread|arm_neon|limits|errno|time|linux/\w+)\.h|[a-z]+")


class Shell:
    """Finds the words of a shell script at which a command is expected."""

    def __init__(self, text, line=1):
        self.text, self.at, self.line = text, 0, line
        self.found = []  # (command, line)
        self.functions = set()
        self.heredocs = []

    def scan(self, end=""):
        """Scans up to the closing character and consumes it."""
        expecting, skip, wrapped = True, 0, False
        while self.at < len(self.text):
            char = self.text[self.at]
            if end and char == end:
                self.at += 1
                return
            if char == "\n":
                self.newline()
                expecting, wrapped = True, False
            elif char in " \t":
                self.at += 1
            elif self.text.startswith("\\\n", self.at):
                self.at += 2
                self.line += 1
            elif char == "#":
                self.at = (self.text.find("\n", self.at) + len(self.text)) % len(self.text) or len(self.text)
            elif self.text.startswith(";;", self.at):
                self.at += 2
                self.skip_pattern()
                expecting, wrapped = True, False
            elif char in ";|&":
                self.at += 1
                expecting, wrapped = True, False
            elif char == "(":
                self.at += 1
                self.scan(")")
                expecting = False
            elif char in "<>":
                self.redirection()
            else:
                line, word = self.line, self.word()
                if not expecting:
                    if word == "in" and self.after_case:
                        self.after_case = False
                        self.skip_pattern()
                        expecting = True
                    continue
                if re.match(r"\(\s*\)", self.text[self.at :]):
                    self.functions.add(word)
                    self.at = self.text.index(")", self.at) + 1
                    continue
                expecting, skip, wrapped = self.command(word, line, skip, wrapped)

    after_case = False

    def command(self, word, line, skip, wrapped):
        """What follows a word in command position: whether another command may, and after how many words."""
        if word in OPENERS:
            return True, 0, False
        if word in ("for", "select", "function"):
            return False, 0, False
        if word == "case":
            self.after_case = True
            return False, 0, False
        if word in CLOSERS or word == "":
            if word == "esac":
                self.after_case = False
            return False, 0, False
        if re.match(r"\w+(\[[^]]*\])?\+?=", word) or (wrapped and word.startswith("-")):
            return True, skip, wrapped
        if skip:
            return True, skip - 1, wrapped
        if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*", word):
            self.found.append((word, line))
        if word in WRAPPERS:
            return True, WRAPPERS[word], True
        return False, 0, False

    def skip_pattern(self):
        """Skips to the closing bracket of a case's pattern, or to `esac`."""
        rest = re.compile(r"(\s|#[^\n]*\n)*(esac\b|\(?[^)]*\))").match(self.text, self.at)
        if rest and not rest.group(2).startswith("esac"):
            self.line += self.text.count("\n", self.at, rest.end())
            self.at = rest.end()

    def newline(self):
        self.at += 1
        self.line += 1
        for mark in self.heredocs:
            end = re.compile(rf"^\t*{re.escape(mark)}$", re.M).search(self.text, self.at)
            stop = end.end() if end else len(self.text)
            self.line += self.text.count("\n", self.at, stop)
            self.at = stop
        self.heredocs = []

    def redirection(self):
        mark = re.compile(r"<<-?\s*(['\"]?)(\w+)\1").match(self.text, self.at)
        if mark and not self.text.startswith("<<<", self.at):
            self.heredocs.append(mark.group(2))
            self.at = mark.end()
            return
        opening = re.compile(r"[<>]\(").match(self.text, self.at)
        if opening:
            self.at = opening.end()
            self.scan(")")
            return
        self.at = re.compile(r"(<<<|[<>]+[&|]?)[ \t]*").match(self.text, self.at).end()
        if self.at < len(self.text) and self.text[self.at] not in "\n<>(":
            self.word()

    def word(self):
        """Reads a word; command substitutions in it are scanned and replaced with `$`."""
        result = ""
        while self.at < len(self.text):
            char = self.text[self.at]
            if char in " \t\n;|&()<>":
                break
            if char == "'":
                stop = self.text.index("'", self.at + 1)
                result += "$" + self.text[self.at + 1 : stop].replace("\n", " ")
                self.line += self.text.count("\n", self.at, stop)
                self.at = stop + 1
            elif char == '"':
                self.at += 1
                result += self.quoted()
            elif char == "$":
                result += self.dollar()
            elif char == "\\":
                result += self.text[self.at + 1 : self.at + 2]
                self.at += 2
            else:
                result += char
                self.at += 1
                if result.endswith("=") and self.text.startswith("(", self.at):  # an array
                    self.at = self.text.index(")", self.at) + 1
        if not result:
            self.at += 1
        return result

    def quoted(self):
        result = ""
        while self.at < len(self.text) and self.text[self.at] != '"':
            char = self.text[self.at]
            if char == "$":
                result += self.dollar()
                continue
            if char == "\\":
                self.at += 1
            self.line += self.text[self.at] == "\n"
            result += self.text[self.at].strip() or "$"
            self.at += 1
        self.at += 1
        return result

    def dollar(self):
        if self.text.startswith("$((", self.at):
            self.at = self.text.index("))", self.at) + 2
        elif self.text.startswith("$(", self.at):
            self.at += 2
            self.scan(")")
        elif self.text.startswith("${", self.at):
            depth, self.at = 1, self.at + 2
            while depth and self.at < len(self.text):
                depth += {"{": 1, "}": -1}.get(self.text[self.at], 0)
                self.at += 1
        else:
            self.at += 1
        return "$"


def makefile_commands(path):
    """The commands of a Makefile's recipes and `$(shell ...)`, with its own variables filled in."""
    text = path.read_text()
    variables = {"CXX": "g++", "MAKE": "make"} | dict(re.findall(r"^(\w+)\s*[:?]?=[ \t]*(.*)$", text, re.M))

    def filled(line):
        line = line.replace("$$", "\0")  # the shell's own
        for _ in range(10):
            line = re.sub(r"\$\((\w+)\)", lambda match: variables.get(match[1], "$x").replace("$$", "\0"), line)
            line = re.sub(r"\$\([\w-]+ [^()]*\)", "$x", line)  # a function of make
        return line.replace("\0", "$")

    found = []
    recipe, began = "", 0
    for number, line in enumerate(text.split("\n"), 1):
        for inner in re.findall(r"\$\(shell ([^()]*)\)", line):
            shell = Shell(inner, number)
            shell.scan()
            found += shell.found
        if recipe or line.startswith("\t"):
            began = began if recipe else number
            recipe += line.lstrip("\t") + "\n"
            if not line.endswith("\\"):
                shell = Shell(filled(recipe.lstrip("@-")), began)
                shell.scan()
                found += shell.found
                recipe = ""
    return found


def scripts():
    named = [".ci/run", "deploy/package/postinst", "deploy/package/prerm", "deploy/package/postrm"]
    paths = [ROOT / name for name in named] + [p for folder in ("deploy", "Tests", "python") for p in sorted((ROOT / folder).rglob("*.sh"))]
    return [path for path in paths if path.is_file()]


def used_commands():
    """Each command and the places that use it, without the scripts' own functions."""
    found, functions = [], set()
    for path in scripts():
        shell = Shell(path.read_text())
        shell.scan()
        functions |= shell.functions
        found += [(command, path, line) for command, line in shell.found]
    for path in [ROOT / "Makefile", ROOT / "Tests/Peers/cpp/Makefile"]:
        found += [(command, path, line) for command, line in makefile_commands(path)]
    # Programs that tests start by name.
    start = re.compile(r'(?:mayRun|Peers\.path|find|Tool\.run|Tool\.path|\.name)\(\s*"([a-z][\w.+-]*)"|"/usr/s?bin/([\w.+-]+)"')
    for path in sorted((ROOT / "Tests").rglob("*.swift")):
        for number, line in enumerate(path.read_text().split("\n"), 1):
            for match in start.finditer(line):
                name = match[1] or match[2]
                if not name.startswith("cpp_"):  # built by `make peers-cpp`
                    found.append((name, path, number))
    return [place for place in found if place[0] not in functions | BUILTINS | OTHERWISE]


def used_headers():
    for folder in ("Sources", "Tests"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".c", ".h", ".cc", ".cpp"):
                for number, line in enumerate(path.read_text().split("\n"), 1):
                    match = re.match(r"\s*#\s*include <(.+)>", line)
                    if match and not STANDARD_HEADER.fullmatch(match[1]):
                        yield match[1], path, number


def main():
    if sys.argv[1:2] == ["--scan"]:
        shell = Shell(sys.argv[2])
        shell.scan()
        print(*sorted({command for command, _ in shell.found}), sep="\n")
        return 0
    table = subprocess.run([ROOT / "deploy/install-packages.sh", "--table"], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in table.splitlines() if line.strip()]
    brought = {what for row in rows for what in row[2:]}
    listed = {name: {row[1] for row in rows if row[0] == name} for name in {row[0] for row in rows}}
    problems = []

    def place(path, line):
        return f"{path.relative_to(ROOT)}:{line}"

    commands = used_commands()
    if "--used" in sys.argv[1:]:
        for name in sorted({command for command, _, _ in commands}):
            print(name, *[place(path, line) for command, path, line in commands if command == name][:4])
        return 0
    for command, path, line in commands:
        if command not in brought | EVERYWHERE:
            problems.append(f"{place(path, line)}: no package in deploy/install-packages.sh brings the command {command}")
    folders = {what.strip("<>").split("/")[0] for what in brought if what.startswith("<")}
    for header, path, line in used_headers():
        if header.split("/")[0] not in folders:
            problems.append(f"{place(path, line)}: no package in deploy/install-packages.sh brings the header <{header}>")
    manifest = (ROOT / "Package.swift").read_text()
    for module in re.findall(r'pkgConfig: "([^"]+)"', manifest):
        if f"{module}.pc" not in brought:
            problems.append(f"Package.swift: no package in deploy/install-packages.sh brings the module {module}")
    for package in re.findall(r'"([^"]+)"', " ".join(re.findall(r"\.apt\(\[(.*?)\]\)", manifest))):
        if package not in listed["build"]:
            problems.append(f"Package.swift: the list `build` in deploy/install-packages.sh lacks {package}")
    dependencies = (ROOT / "docs/dependencies.md").read_text()
    for package in sorted(listed["build"] | listed["test"]):
        if f"`{package}`" not in dependencies:
            problems.append(f"docs/dependencies.md: it does not mention {package}, which builds or tests need")
    print("\n".join(problems), end="\n" if problems else "")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
