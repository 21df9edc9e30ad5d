// SPDX-License-Identifier: Apache-2.0

import FuzzTargets
import Glibc

// switchyard-fuzz: runs a fuzz target on mutated inputs, or on given ones; see docs/testing.md.

do throws(OptionError) {
    let options = try Options(Array(CommandLine.arguments.dropFirst()))
    #if LIBFUZZER
    exit(LibFuzzer.run(options))
    #else
    switch options.mode {
    case .help:
        print(Options.usage)
        exit(0)
    case .writeSeeds(let folder):
        exit(Files.writeSeeds(to: folder) ? 0 : 1)
    case .replay(let files):
        exit(Replay.run(options, files: files))
    case .supervise:
        exit(Supervisor.run(options))
    case .work:
        var worker = Worker(options)
        exit(worker.run())
    }
    #endif
} catch {
    print("error: \(error.message)\n\(Options.usage)")
    exit(2)
}
