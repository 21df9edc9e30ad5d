// SPDX-License-Identifier: Apache-2.0

import FuzzTargets
import Glibc

/// Runs mutated inputs in this process.
struct Worker {
    /// The exit status after findings.
    static let foundStatus: Int32 = 3

    private let options: Options
    private let target: FuzzTarget
    private var pool = InputPool()
    private var mutator: Mutator
    private var random: SplitMix64
    private var findings: [String: Int] = [:]

    init(_ options: Options) {
        self.options = options
        self.target = options.target
        self.mutator = Mutator(target: options.target, seed: options.seed)
        self.random = SplitMix64(seed: ~options.seed)
    }

    /// Where the input that is about to run is kept.
    static func currentPath(_ options: Options) -> String {
        "\(options.artifacts)/current-\(options.target.rawValue)-\(options.seed)"
    }

    /// Runs all inputs.
    ///
    /// - Returns: The exit status.
    mutating func run() -> Int32 {
        Cost.limitMemory()
        guard let current = CurrentInput(path: Self.currentPath(self.options)) else {
            print("error: \(self.options.artifacts) cannot be written; choose another folder with --artifacts")
            return 2
        }
        var begin: [[UInt8]] = Seeds.inputs(for: self.target).map(\.bytes)
        if let corpus = self.options.corpus {
            let paths = Files.list(corpus) + Files.list("\(corpus)/\(self.target.rawValue)")
            begin += paths.compactMap { Files.read($0) }.filter { $0.count <= FuzzTarget.maxInputBytes }
        }
        let start = ContinuousClock.now
        var lastReport = start
        for input in begin {
            current.set(input)
            self.runOnce(input)
            self.pool.add(seed: input)
        }
        for count in 0..<self.options.runs {
            // Half of the parents are young, since what was found last leads on best.
            let parentCount = self.pool.inputs.count
            let young = max(1, parentCount / 8)
            let isYoung = self.random.below(2) == 0
            let index = isYoung ? parentCount - 1 - self.random.below(young) : self.random.below(parentCount)
            let other = self.pool.inputs[self.random.below(parentCount)]
            let input = self.mutator.mutate(self.pool.inputs[index], with: other)
            current.set(input)
            self.runOnce(input)
            if count & 0xff == 0 {
                if ContinuousClock.now - lastReport > .seconds(10) {
                    lastReport = .now
                    self.report(count, since: start)
                }
            }
        }
        Cost.startClock(seconds: 0)
        self.report(self.options.runs, since: start)
        for (property, times) in self.findings.sorted(by: { $0.key < $1.key }) {
            print("finding: \(property) (\(times) times)")
        }
        return self.findings.isEmpty ? 0 : Self.foundStatus
    }

    private mutating func runOnce(_ input: [UInt8]) {
        do throws(FuzzFinding) {
            // An input that takes longer than this hangs; the signal then ends the process.
            Cost.startClock(seconds: 30)
            let begin = Cost.now
            let summary = try self.target.run(input)
            try Cost.now.check(since: begin, inputBytes: input.count)
            if self.pool.add(input, summary: summary, &self.random), let keep = self.options.keep, input.count < 600 {
                Files.write(input, to: "\(keep)/\(self.target.rawValue)/\(Files.name(of: input))")
            }
        } catch {
            let times = self.findings[error.property, default: 0]
            self.findings[error.property] = times + 1
            guard times == 0 else { return }
            Cost.startClock(seconds: 0)
            let small = self.target.minimized(input, finding: error)
            let path = "\(self.options.artifacts)/finding-\(self.target.rawValue)-\(Files.name(of: small))"
            Files.write(small, to: path)
            print("\(self.target.rawValue): \(error)\n  kept as \(path) (\(small.count) bytes)")
        }
    }

    private func report(_ count: Int, since start: ContinuousClock.Instant) {
        let elapsed = ContinuousClock.now - start
        let seconds = Double(elapsed.components.seconds) + Double(elapsed.components.attoseconds) / 1e18
        let rate = Int(Double(count) / max(seconds, 0.001))
        print(
            "\(self.target.rawValue): \(count) inputs in \(Int(seconds)) s, \(rate)/s, "
                + "\(self.pool.inputs.count) kept, \(self.findings.count) findings"
        )
        fflush(nil)
    }
}
