// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import CommandKit
import GatewayServing
import Logging
import ServiceKit
import SwitchModel
import SwitchyardProtos
import SwitchyardTypes

/// A whole model in this process: what `generate --local` asks.
struct LocalModel {
    private let gateway: LocalGateway
    private let timeout: Duration?

    /// Loads a model.
    ///
    /// - Parameters:
    ///   - name: A folder, or a hub id in the local cache.
    ///   - overrides: Configuration keys to override.
    ///   - adapter: A LoRA adapter to merge, named like the model.
    ///   - threads: Compute threads; all processors when nil.
    ///   - precision: How to keep the weights.
    ///   - timeout: How long a request may take; nil is unlimited.
    /// - Throws: What is wrong with the checkpoint or the tokenizer.
    init(
        name: String,
        overrides: [String: String],
        adapter: String?,
        threads: Int?,
        precision: LocalPrecisionOptions,
        timeout: Duration?
    ) throws {
        var configuration = LocalGatewayConfiguration(modelDirectory: try ModelSettings.directory(name))
        configuration.modelOverrides = overrides
        configuration.adapterDirectory = try adapter.map(ModelSettings.directory)
        configuration.threads = threads ?? Processors.count
        configuration.storage = precision.model
        configuration.expertStorage = precision.experts
        let bar = ProgressBar()
        // Errors are thrown; logging them to the terminal as well would show them twice.
        let logger = Logger(label: "switchyard") { _ in SwiftLogNoOpLogHandler() }
        self.gateway = try LocalGateway(configuration: configuration, logger: logger) { bar.show($0) }
        self.timeout = timeout
    }

    /// Generates as a gateway would; once.
    ///
    /// - Parameters:
    ///   - request: The input and how to continue from it.
    ///   - onToken: Takes each token as it is chosen; nil if only the whole answer is wanted.
    /// - Returns: The whole answer.
    /// - Throws: A gateway's status, such as for parameters outside their limits.
    func generate(
        _ request: GenerateRequest,
        onToken: ((GeneratedToken) async throws -> Void)? = nil
    ) async throws -> GenerateResponse {
        try await self.gateway.whileRunning {
            try await self.gateway.generate(request, timeout: self.timeout, onToken: onToken)
        }
    }
}
