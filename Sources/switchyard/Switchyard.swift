// SPDX-License-Identifier: Apache-2.0

import ArgumentParser

@main
struct Switchyard: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "switchyard",
        abstract: "Serve Switch Transformers as a cluster."
    )
}
