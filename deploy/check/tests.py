#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the test suite, which has been built, and says at its end which tests failed and why.

The suites are cut into pieces, and as many processes as there are processors run them, one piece and one test at a time. The
log of a piece is printed when it ends. Every test that the program lists must have a result, so none is left out.

Up to three tests that fail run once more, alone. If they pass then, they are named, and the run passes: such a test does not
hold on a busy machine, and must be fixed.

    deploy/check/tests.py                      everything
    deploy/check/tests.py --filter TEXT ...    in one process, with arguments of `swift test`: --filter, --skip
    deploy/check/tests.py --pieces             prints the pieces and how many tests each has

    SWITCHYARD_TEST_JOBS=N            how many processes run at a time
    SWITCHYARD_TEST_RERUN=0           lets a test fail that would pass alone
    SWITCHYARD_TEST_RESULTS=FOLDER    where logs and results (xUnit) are written: all.xml, and a log for each piece; the
                                      folder is emptied first (.build/tests)
    SWIFT=PROGRAM                     the `swift` that built the tests
"""

import collections
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OUT = Path(os.environ.get("SWITCHYARD_TEST_RESULTS") or ROOT / ".build" / "tests")
SWIFT = os.environ.get("SWIFT", "swift").split()

# Suites that take a minute or more begin first, so that none is left over at the end. The order changes nothing else.
LONGEST = """ClusterTests.HTTPPeerTests AttackTests.NeighbourTests ClusterTests.TrainLogTests
    ClusterTests.TrainAdapterShardsTests ClusterTests.PythonPackageTests ClusterTests.FaultRowTests ClusterTests.TrainShardsTests
    ClusterTests.TrainStatusTests ClusterTests.TrainClusterTests SwitchyardBenchTests.CountTests ClusterTests.PageTests
    FaultSimulationTests SwitchyardBenchTests ServingTests ClusterTests AttackTests SwitchModelTests SwitchTrainingTests""".split()

# A piece takes a process, whose start takes a moment: small suites of a module share one.
TESTS_IN_A_PIECE = 20

# The exit status of a run whose filters leave no test.
NO_TESTS = 69

# How often a run says what it is at, in seconds.
NEWS = 60

Piece = collections.namedtuple("Piece", "name suites tests")

# How a process ended: its exit status, the time it took, and the processors' time that it took with its children, in seconds.
End = collections.namedtuple("End", "status seconds work")


def output_of(command):
    """The lines that a command prints."""
    run = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")
    if run.returncode or not run.stdout:
        sys.exit(f"error: {' '.join(command)} ended with {run.returncode}: {run.stderr}")
    return run.stdout.splitlines()


def variables():
    """The variables of the tests' processes: `switchyard` refuses a setting that it does not know."""
    own = ("SWITCHYARD_TEST_JOBS", "SWITCHYARD_TEST_RERUN", "SWITCHYARD_TEST_RESULTS")
    return {name: value for name, value in os.environ.items() if name not in own}


def suite_of(test):
    """The outermost suite of a test, or the test itself where it is in none: MODULE.NAME."""
    return test.split("/", 1)[0]


def cut(tests):
    """The pieces of a list of tests: whole suites, of one module each, the longest first."""
    suites = {}
    for test in tests:
        suites.setdefault(suite_of(test), []).append(test)
    pieces, open_pieces = [], {}
    for suite in sorted(suites):
        module = suite.split(".", 1)[0]
        piece = None if suite in LONGEST else open_pieces.get(module)
        if piece is None:
            piece = Piece(suite, [], [])
            pieces.append(piece)
            if suite not in LONGEST:
                open_pieces[module] = piece
        piece.suites.append(suite)
        piece.tests.extend(suites[suite])
        if len(piece.tests) >= TESTS_IN_A_PIECE and open_pieces.get(module) is piece:
            del open_pieces[module]

    def rank(piece):
        names = [piece.name, piece.name.split(".", 1)[0]]
        return min([LONGEST.index(name) for name in names if name in LONGEST], default=len(LONGEST))

    return sorted(pieces, key=rank)


def choice(names):
    """The arguments that choose suites or tests by their whole names."""
    return ["--filter", "^(" + "|".join(re.escape(name) for name in names) + ")(/|$)"]


class Suite:
    """The program with the tests, and the processes that run it."""

    def __init__(self):
        self.running = {}
        self.lock = threading.Lock()
        self.is_over = False
        programs = sorted(Path(output_of([*SWIFT, "build", "--show-bin-path"])[-1]).glob("*PackageTests.xctest"))
        if len(programs) != 1:
            sys.exit("error: the tests are not built; build them with: swift build --build-tests")
        # As `swift test` starts it.
        self.program = [str(programs[0]), "--testing-library", "swift-testing"]
        self.folder = tempfile.mkdtemp(prefix="swt-")
        # Tests run programs as other users.
        os.chmod(self.folder, 0o711)

    def tests(self):
        """The names of all tests: MODULE.SUITE/FUNCTION."""
        return output_of([*self.program, "--list-tests"])

    def run(self, name, arguments):
        """Runs tests in a process of its own, with its own temporary folder; gives how it ended."""
        log, results = OUT / f"{name}.log", OUT / f"{name}.xml"
        results.unlink(missing_ok=True)
        temporary = Path(self.folder, str(time.monotonic_ns()))
        temporary.mkdir()
        temporary.chmod(0o1777)
        command = [*self.program, "--no-parallel", "--xunit-output", str(results), *arguments]
        with open(log, "wb") as output, self.lock:
            if self.is_over:
                return End(-signal.SIGINT, 0, 0)
            process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                env={**variables(), "TMPDIR": str(temporary), "NO_COLOR": "1"}, start_new_session=True,
            )  # fmt: skip
            began = time.monotonic()
            self.running[name] = (process, began)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        with self.lock:
            del self.running[name]
        shutil.rmtree(temporary, ignore_errors=True)
        return End(process.returncode, time.monotonic() - began, usage.ru_utime + usage.ru_stime)

    def end(self):
        """Ends what runs, with its children."""
        with self.lock:
            self.is_over = True
            processes = [process for process, _ in self.running.values()]
        for number, patience in ((signal.SIGINT, 5), (signal.SIGKILL, 5)):
            for process in processes:
                try:
                    os.killpg(process.pid, number)
                except ProcessLookupError:
                    pass
            end = time.monotonic() + patience
            while time.monotonic() < end and any(process.poll() is None for process in processes):
                time.sleep(0.1)
        shutil.rmtree(self.folder, ignore_errors=True)

    def news(self):
        """What is running, and since when."""
        with self.lock:
            running = [(name, time.monotonic() - began) for name, (_, began) in self.running.items()]
        return [f"running {name} for {seconds:.0f} s: {last_test(name) or 'it begins'}" for name, seconds in running]


def lines_of(name):
    """A log, with its marks: each line's first character says what it is."""
    try:
        return (OUT / f"{name}.log").read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []


def last_test(name):
    """The test that began last."""
    begun = [line for line in lines_of(name) if re.match(r"◇ Test (?!run)", line)]
    return begun[-1][2:] if begun else None


def results_of(name):
    """The elements `testcase` of a run's results; None if it ended before it wrote them."""
    try:
        text = (OUT / f"{name}.xml").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    # What XML cannot hold.
    text = re.sub(r"&#(x?)0*([0-9a-fA-F]+);", lambda found: found[0] if int(found[2], 16 if found[1] else 10) > 31 else " ", text)
    text = re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", " ", text)
    try:
        return list(ElementTree.fromstring(text).iter("testcase"))
    except ElementTree.ParseError:
        return None


def name_of(case):
    """A result's test, as the program lists it but for the signs between suites."""
    return f"{case.get('classname')}/{case.get('name')}"


def failures(cases):
    """The failed tests, and the messages of each."""
    failed = {}
    for case in cases:
        messages = [" ".join(failure.get("message", "").split()) for failure in case.iter("failure")]
        if messages:
            failed.setdefault(name_of(case), []).extend(message[:400] for message in messages)
    return failed


def show(failed):
    for name, messages in failed.items():
        for message in messages:
            print(f"{name}\t{message}")


def missing(tests, cases):
    """The tests that have no result, as the program lists them."""
    left = collections.Counter(name_of(case).replace("/", ".") for case in cases)
    without = []
    for test in tests:
        if left[test.replace("/", ".")] > 0:
            left[test.replace("/", ".")] -= 1
        else:
            without.append(test)
    return without


def report(name, end, of=""):
    """Prints how a run of tests ended, and its log without the lines that say what begins.

    Gives its results, and what is wrong with it as a whole.
    """
    cases = results_of(name)
    lines = lines_of(name)
    wrong = None
    status = end.status
    if status == NO_TESTS:
        wrong, cases = "no test has such a name", []
    elif cases is None:
        wrong = f"{name} ended with status {status} and without results, in {last_test(name) or 'its start'}"
    elif status and not failures(cases):
        wrong = f"{name} ended with status {status}, though none of its tests failed"
    outcome = "CRASHED" if cases is None else "FAILED" if status else "passed"
    print(f"\n== {outcome} {of}{name}: {len(cases or [])} tests in {end.seconds:.0f} s, {end.work:.0f} s of a processor")
    for line in lines if cases is None else (line for line in lines if not line.startswith("◇")):
        print(line)
    sys.stdout.flush()
    return cases or [], wrong


def run_pieces(suite, pieces):
    """Runs the pieces, prints their logs, and gives all results, and what is wrong with whole pieces."""
    work, done = queue.Queue(), queue.Queue()
    for piece in pieces:
        work.put(piece)

    def keep_running():
        while True:
            try:
                piece = work.get_nowait()
            except queue.Empty:
                return
            try:
                end = suite.run(piece.name, choice(piece.suites))
            except OSError as error:
                end = End(str(error), 0, 0)
            done.put((piece, end))

    jobs = int(os.environ.get("SWITCHYARD_TEST_JOBS") or len(os.sched_getaffinity(0)))
    for _ in range(max(1, min(jobs, len(pieces)))):
        threading.Thread(target=keep_running, daemon=True).start()
    cases, wrong = [], []
    for number in range(1, len(pieces) + 1):
        while True:
            try:
                piece, end = done.get(timeout=NEWS)
                break
            except queue.Empty:
                print("\n".join(suite.news()), flush=True)
        found, problem = report(piece.name, end, f"[{number}/{len(pieces)}] ")
        cases += found
        if problem:
            wrong.append(problem)
        elif without := missing(piece.tests, found):
            wrong.append(f"{piece.name} ran without {', '.join(without)}")
    return cases, wrong


def write(cases):
    """Writes the results of all pieces into one file."""
    top = ElementTree.Element("testsuites")
    one = ElementTree.SubElement(
        top, "testsuite", name="TestResults", errors="0", tests=str(len(cases)), failures=str(len(failures(cases))),
        skipped=str(sum(case.find("skipped") is not None for case in cases)),
        time=str(sum(float(case.get("time", 0)) for case in cases)),
    )  # fmt: skip
    one.extend(cases)
    ElementTree.ElementTree(top).write(OUT / "all.xml", encoding="UTF-8", xml_declaration=True)


def judge(suite, tests, cases, wrong):
    """Names what failed, runs a few of them once more, and gives the exit status."""
    failed = failures(cases)
    if not failed and not wrong:
        return 0
    print("\nFailed tests:")
    show(failed)
    for line in wrong:
        print(line)
    if wrong or len(failed) > 3 or os.environ.get("SWITCHYARD_TEST_RERUN", "1") == "0":
        return 1
    print(f"\nRunning {len(failed)} once more, alone.", flush=True)
    again = [test for test in tests if test.replace("/", ".") in {name.replace("/", ".") for name in failed}]
    # A filter that matches nothing passes as well.
    status = suite.run("again", choice(again)).status if again else 0
    cases = results_of("again") or []
    if status or failures(cases):
        print("They fail alone, too:")
        show(failures(cases))
        return 1
    if not again or missing(again, cases):
        print(f"They were not found again; see {OUT}/again.log")
        return 1
    print("They passed alone. A test must hold on a busy machine: fix them.")
    return 0


def main(arguments):
    if arguments and arguments[0] in ("--help", "-h"):
        print(__doc__.strip())
        return 0
    sys.stdout.reconfigure(encoding="utf-8", errors="replace")
    suite = Suite()

    def stop(number, _):
        raise KeyboardInterrupt(number)

    # Where make installs other people's clients, which tests start.
    for name, folder in (("PYTHON", ".venv"), ("CONVERTER", ".venv-converter")):
        os.environ.setdefault(f"SWITCHYARD_TEST_{name}", str(ROOT / folder / "bin" / "python"))
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in signals:
        signal.signal(number, stop)
    try:
        tests = suite.tests()
        pieces = cut(tests)
        if sum(len(piece.tests) for piece in pieces) != len(tests):
            sys.exit("error: the pieces are not the list of tests")
        if arguments == ["--pieces"]:
            for piece in pieces:
                print(f"{len(piece.tests):5} {' '.join(piece.suites)}")
            return 0
        shutil.rmtree(OUT, ignore_errors=True)
        OUT.mkdir(parents=True)
        began = time.monotonic()
        if arguments:
            cases, problem = report("all", suite.run("all", arguments))
            wrong = [problem] if problem else []
        else:
            cases, wrong = run_pieces(suite, pieces)
        write(cases)
        print(f"\n{len(cases)} of {len(tests)} tests in {time.monotonic() - began:.0f} s; results in {OUT}/all.xml")
        return judge(suite, tests, cases, wrong)
    except KeyboardInterrupt as interrupt:
        for number in signals:
            signal.signal(number, signal.SIG_IGN)
        for line in suite.news():
            print(line)
        return 128 + (interrupt.args[0] if interrupt.args else signal.SIGINT)
    finally:
        suite.end()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
