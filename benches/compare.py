#!/usr/bin/env python3
"""Runs programs under memcheck and under Valgrind and prints where their reports differ.

    benches/compare.py                      every fixture
    benches/compare.py access free/stack    fixtures whose path contains one of the words
    benches/compare.py some/directory       every program in it (.c, .cpp, .rs; directives as in fixtures, if any)
    benches/compare.py -- ls -l /usr        one command

Compared: headlines, stacks (as far as they lie in named source files), what an address is, leak records, the two summaries and the exit
status. Process ids, addresses and the frames of the tools' own allocators are not. A difference is not a fault: each is to be judged.
Valgrind's known gaps (`//@ valgrind:` in a fixture) are marked with that sentence. MEMCHECK names another tool binary.
"""
import os
import re
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MEMCHECK = os.environ.get("MEMCHECK", os.path.join(ROOT, "target/release/memcheck"))
LIMIT = 120

# (pattern, replacement), applied to every line of a report
NORMAL = [
    (re.compile(r"^(==|--|\*\*)\d+\1 ?"), ""),
    (re.compile(r"0x[0-9A-Fa-f]{3,}"), "0xADDR"),
    (re.compile(r"in loss record [\d,]+ of [\d,]+"), "in loss record"),
    (re.compile(r"/\S*/(?=[^/\s]+\))"), ""),
]
FRAME = re.compile(r"^   (?:at|by) 0xADDR: (.*)$")
SUMMARY = re.compile(r"^ *(in use at exit|total heap usage|definitely lost|indirectly lost|possibly lost|still reachable|ERROR SUMMARY|"
                     r"All heap blocks were freed)")
HEADLINE = re.compile(r"^(Invalid |Mismatched|Conditional jump|Use of uninit|Syscall param|Source and dest|Argument '|Jump to|Process term|"
                      r"[\d,]+ .*bytes in [\d,]+ blocks are )")


def normal(line):
    for pattern, replacement in NORMAL:
        line = pattern.sub(replacement, line)
    return line.rstrip()


def frame(text):
    """A frame as far as both tools can agree: function and source line, or nothing for objects without names."""
    match = re.match(r"(.*) \((\S+:\d+)\)$", text)
    return f"{match[1]} {match[2]}" if match else None


def findings(text):
    """A set of findings, each a tuple of lines, and the list of summary lines."""
    found, summary, current = {}, [], None
    for line in map(normal, text.splitlines()):
        match = FRAME.match(line)
        if HEADLINE.match(line):
            current = [line]
            found[id(current)] = current
        elif SUMMARY.match(line):
            summary.append(line.strip())
            current = None
        elif not line:
            current = None
        elif current is not None and match:
            place = frame(match[1])
            # What libc and libstdc++ look like inside depends on their debug files.
            if place and not re.search(r"vg_replace|vfprintf|libc_start|\.S:\d+$", place):
                current.append("  " + place)
        elif current is not None:
            current.append(" " + line.strip())
    return sorted({tuple(lines) for lines in found.values()}), summary


def run(tool, options, command, cwd):
    log = os.path.join(cwd, "log")
    with open(log, "w"):
        pass
    # memcheck names origins unasked.
    origins = [] if "--undef-value-errors=no" in options else ["--track-origins=yes"]
    argv = [tool, "--leak-check=full", "--show-leak-kinds=all", *origins, f"--log-file={log}", *options, *command]
    try:
        code = subprocess.run(argv, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=LIMIT)
        status = f"exit {code.returncode}"
        out = code.stdout
    except subprocess.TimeoutExpired:
        status, out = f"no end after {LIMIT} s", b""
    with open(log, errors="replace") as file:
        found, summary = findings(file.read())
    return found, summary, status, out


def compare(name, options, command, cwd, remark=""):
    """Prints the differences of one program; returns whether there were any."""
    ours, theirs = run(MEMCHECK, options, command, cwd), run("valgrind", options, command, cwd)
    lines = []
    for finding in ours[0]:
        if finding not in theirs[0]:
            lines += ["  + " + finding[0]] + ["    + " + line for line in finding[1:]]
    for finding in theirs[0]:
        if finding not in ours[0]:
            lines += ["  - " + finding[0]] + ["    - " + line for line in finding[1:]]
    for a in ours[1]:
        if a not in theirs[1]:
            lines.append("  + " + a)
    for b in theirs[1]:
        if b not in ours[1]:
            lines.append("  - " + b)
    if ours[2] != theirs[2]:
        lines.append(f"  status: {ours[2]}, Valgrind {theirs[2]}")
    if ours[3] != theirs[3]:
        lines.append("  the program's own output differs")
    if lines:
        print(f"{name}{'   [Valgrind: ' + remark + ']' if remark else ''}")
        print("\n".join(lines))
    return bool(lines)


def directives(path):
    """The `//@ key: value` lines of a fixture; of repeated keys the first."""
    values = {}
    with open(path, errors="replace") as file:
        for line in file:
            match = re.match(r"//@ ([\w-]+):? ?(.*)", line)
            if match:
                values.setdefault(match[1], match[2].strip())
    return values


def programs(top):
    for folder, _, files in sorted(os.walk(top)):
        for file in sorted(files):
            if file.endswith((".c", ".cpp", ".rs")):
                path = os.path.join(folder, file)
                yield os.path.relpath(path, top), path


def chosen(words):
    directories = [word for word in words if os.path.isdir(word)]
    words = [word for word in words if word not in directories]
    if words or not directories:
        for name, path in programs(os.path.join(ROOT, "fixtures")):
            if not words or any(word in name for word in words):
                yield name, path
    for directory in directories:
        yield from programs(directory)


def main(args):
    command = []
    if "--" in args:
        at = args.index("--")
        args, command = args[:at], args[at + 1:]
    with tempfile.TemporaryDirectory() as work:
        if command:
            return compare(command[0], args, command, work)
        same = different = 0
        for name, path in chosen(args):
            given = directives(path)
            exe = os.path.join(work, "program")
            compiler = {"cpp": "g++", "rs": "rustc"}.get(path.rsplit(".", 1)[1], "gcc")
            compiler = next((need for need in given.get("needs", "").split() if need in ("clang", "musl-gcc")), compiler)
            quiet = "-Awarnings" if compiler == "rustc" else "-w"
            flags = given.get("cflags", "-g" if compiler == "rustc" else "-g -O0").split()
            try:
                built = subprocess.run([compiler, path, "-o", exe, quiet, *flags], stderr=subprocess.DEVNULL)
            except FileNotFoundError:
                continue
            if built.returncode:
                print(f"{name}: does not compile")
                continue
            argv = [exe, *given.get("args", "").split()]
            if compare(name, given.get("options", "").split(), argv, work, given.get("valgrind", "")):
                different += 1
            else:
                same += 1
        print(f"{same} equal, {different} different")
    return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
