// SPDX-License-Identifier: Apache-2.0

// Built in only with `-Xswiftc -DLIBFUZZER -Xswiftc -sanitize=fuzzer`; see docs/testing.md.
#if LIBFUZZER

import FuzzTargets
import Glibc

/// The entry of libFuzzer's library form (https://llvm.org/docs/LibFuzzer.html#using-libfuzzer-as-a-library).
///
/// Its header is not part of the toolchain; with three plain arguments Swift's calling convention is C's.
@_silgen_name("LLVMFuzzerRunDriver")
private func llvmFuzzerRunDriver(
    _ argumentCount: UnsafeMutablePointer<CInt>,
    _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?>,
    _ body: @convention(c) (UnsafePointer<UInt8>?, Int) -> CInt
) -> CInt

/// Lets libFuzzer choose the inputs, by the code that they reach.
enum LibFuzzer {
    /// Runs libFuzzer with the arguments of `SWITCHYARD_LIBFUZZER_ARGUMENTS`, separated by spaces.
    static func run(_ options: Options) -> Int32 {
        // libFuzzer's callback has no context: the target comes from the environment of the process.
        setenv("SWITCHYARD_FUZZ_TARGET", options.target.rawValue, 1)
        let extra = getenv("SWITCHYARD_LIBFUZZER_ARGUMENTS").map { String(cString: $0) } ?? ""
        let words = ["switchyard-fuzz"] + extra.split(separator: " ").map(String.init)
        var arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
        var count = CInt(words.count)
        return arguments.withUnsafeMutableBufferPointer { buffer in
            var base = buffer.baseAddress
            return llvmFuzzerRunDriver(&count, &base) { start, length in
                LibFuzzer.runOnce(Array(UnsafeBufferPointer(start: start, count: length)))
            }
        }
    }

    private static let target = getenv("SWITCHYARD_FUZZ_TARGET").flatMap { FuzzTarget(rawValue: String(cString: $0)) }

    private static func runOnce(_ input: [UInt8]) -> CInt {
        do throws(FuzzFinding) {
            _ = try Self.target?.run(input)
        } catch {
            print("\(error)")
            fflush(nil)
            abort()
        }
        return 0
    }
}

#endif
