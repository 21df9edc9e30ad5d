// SPDX-License-Identifier: Apache-2.0

import FuzzTargets
import Glibc

/// What the process has used so far.
///
/// Only the driver looks at it: a test must hold on a busy machine.
struct Cost {
    /// Processor time in nanoseconds.
    var nanoseconds: Int
    /// The most memory that the process has held, in bytes.
    var peakBytes: Int

    /// The most processor time of one input.
    private static let mostNanoseconds = 2_000_000_000
    /// The most memory that one input may add to the process's peak, whatever its length, and for each of its bytes.
    private static let freeBytes = 64 << 20
    private static let mostBytesPerByte = 1_024
    /// The most address space of the process, so that an allocation of a size from the input fails at once.
    private static let mostAddressSpace: rlim_t = 8 << 30

    /// What was used up to now.
    static var now: Cost {
        var time = timespec()
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time)
        var usage = rusage()
        getrusage(RUSAGE_SELF.rawValue, &usage)
        return Cost(nanoseconds: time.tv_sec * 1_000_000_000 + time.tv_nsec, peakBytes: usage.ru_maxrss << 10)
    }

    /// Makes allocations fail that no input of the targets' length can need.
    static func limitMemory() {
        var limit = rlimit(rlim_cur: Self.mostAddressSpace, rlim_max: Self.mostAddressSpace)
        setrlimit(__rlimit_resource_t(RLIMIT_AS.rawValue), &limit)
    }

    /// Ends the process once it has used this much more processor time: on a busy machine, time on the wall says nothing.
    ///
    /// - Parameter seconds: How much; 0 sets no end.
    static func startClock(seconds: Int) {
        var timer = itimerval(it_interval: timeval(), it_value: timeval(tv_sec: seconds, tv_usec: 0))
        setitimer(__itimer_which_t(ITIMER_PROF.rawValue), &timer, nil)
    }

    /// Checks what one input has cost.
    ///
    /// - Parameters:
    ///   - begin: What was used before.
    ///   - inputBytes: The input's length.
    /// - Throws: A finding for too much time, or memory that is out of proportion.
    func check(since begin: Cost, inputBytes: Int) throws(FuzzFinding) {
        let nanoseconds = self.nanoseconds - begin.nanoseconds
        guard nanoseconds <= Self.mostNanoseconds else {
            throw FuzzFinding("an input takes bounded time", "\(nanoseconds / 1_000_000) ms for \(inputBytes) bytes")
        }
        let bytes = self.peakBytes - begin.peakBytes
        guard bytes <= Self.freeBytes + Self.mostBytesPerByte * inputBytes else {
            throw FuzzFinding("memory is in proportion to the input", "\(bytes >> 20) MiB for \(inputBytes) bytes")
        }
    }
}
