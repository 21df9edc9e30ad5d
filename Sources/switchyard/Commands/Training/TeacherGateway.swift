// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Checkpoints
import Logging
import ServiceKit
import SwitchyardClient

/// Flags of a gateway that serves a teacher.
struct TeacherGatewayOptions: ParsableArguments {
    @Option(DistillSettings.table.teacherGateway) var teacherGateway: String?
    @Option(DistillSettings.table.teacherWait) var teacherWaitSeconds: String?
    @Flag(ClientSettings.table.security.tls) var tls = false
    @Option(ClientSettings.table.security.tlsCA) var tlsCa: String?
    @Option(ClientSettings.table.security.tlsCertificate) var tlsCertificate: String?
    @Option(ClientSettings.table.security.tlsKey) var tlsKey: String?
    @Option(ClientSettings.table.security.tlsServerName) var tlsServerName: String?
    @Flag(ClientSettings.table.security.plaintext) var plaintext = false
    @Option(ClientSettings.table.security.tokenFile) var tokenFile: String?
}

/// The gateway that serves a run's teacher.
enum TeacherGateway {
    /// Connects to the gateway that settings name, if they do, while a body runs.
    ///
    /// - Parameters:
    ///   - settings: The settings.
    ///   - directory: The teacher's checkpoint, which the gateway must serve.
    ///   - answers: Which answers are wanted.
    ///   - stop: Whether the run has been told to end.
    ///   - body: Gets the teacher; nil where it is to run in this process.
    /// - Returns: The body's result.
    /// - Throws: ``Settings/Failure`` naming what cannot be used, what ``GatewayTeacher`` and the body throw.
    static func with<Result: Sendable>(
        _ settings: Settings,
        of directory: String,
        _ answers: DistillCommand.Answers,
        _ stop: TrainingStop,
        _ body: @escaping @Sendable (GatewayTeacher?) async throws -> Result
    ) async throws -> Result {
        guard let endpoint = try settings.value(DistillSettings.table.teacherGateway) else {
            return try await body(nil)
        }
        let patience = try settings.value(DistillSettings.table.teacherWait)
        let checkpoint = try Checkpoint.open(directory)
        var configuration = GatewayClientConfiguration.defaults
        configuration.token = try SecuritySettings.token(settings).map { try BearerToken($0) }
        let options = try SecuritySettings.client(settings, host: endpoint.host, endpoint: endpoint.description)
        // Without TLS the connection is to loopback, or a setting allows plaintext.
        configuration.security = options.map { .tls($0) } ?? .plaintext
        let logger = Logger(label: "teacher") { _ in SwiftLogNoOpLogHandler() }
        return try await GatewayClient.with(endpoint: endpoint, configuration: configuration, logger: logger) {
            client in
            let teacher = try await GatewayTeacher(
                client,
                of: checkpoint,
                kept: answers.kept,
                temperature: answers.temperature,
                patience: patience,
                isStopping: { stop.isAsked }
            )
            return try await body(teacher)
        }
    }
}
