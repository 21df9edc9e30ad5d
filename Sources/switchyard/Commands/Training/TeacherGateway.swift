// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Checkpoints
import GatewayServing
import Logging
import ServiceKit
import SwitchyardClient
import TrainingRuns

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
    /// What is asked of a gateway rather than computed by the run itself.
    struct Served: Sendable {
        /// The teacher; nil where it is to run in this process.
        var teacher: GatewayTeacher?
        /// The teacher's own answers; nil where the data's targets count.
        var answers: GeneratedAnswers?
    }

    /// Connects to the gateway that settings name, or opens one in this process if that is needed, while a body runs.
    ///
    /// - Parameters:
    ///   - settings: The settings.
    ///   - directory: The teacher's checkpoint, which the gateway must serve.
    ///   - answers: Which answers are wanted.
    ///   - stop: Whether the run has been told to end.
    ///   - body: Gets what is asked of the gateway.
    /// - Returns: The body's result.
    /// - Throws: ``Settings/Failure`` naming what cannot be used, what ``GatewayTeacher`` and the body throw.
    static func with<Result: Sendable>(
        _ settings: Settings,
        of directory: String,
        _ answers: DistillCommand.Answers,
        _ stop: TrainingStop,
        _ body: @escaping @Sendable (Served) async throws -> Result
    ) async throws -> Result {
        let logger = Logger(label: "teacher") { _ in SwiftLogNoOpLogHandler() }
        let checkpoint = try Checkpoint.open(directory)
        let identity = answers.beams.map {
            AnswerIdentity(
                fingerprint: checkpoint.fingerprint,
                expertCapacity: checkpoint.configuration.expertCapacity,
                beams: $0,
                mostTokens: answers.mostTokens
            )
        }
        guard let endpoint = try settings.value(DistillSettings.table.teacherGateway) else {
            guard let identity else { return try await body(Served()) }
            var configuration = LocalGatewayConfiguration(modelDirectory: directory)
            configuration.threads = answers.threads
            let local = try LocalGateway(configuration: configuration, logger: logger)
            return try await local.whileRunning {
                try await body(Served(answers: GeneratedAnswers(identity) { try await local.generate($0) }))
            }
        }
        let patience = GatewayPatience(limit: try settings.value(DistillSettings.table.teacherWait)) { stop.isAsked }
        let configuration = try Self.configuration(settings, endpoint)
        return try await GatewayClient.with(endpoint: endpoint, configuration: configuration, logger: logger) {
            client in
            let teacher = try await GatewayTeacher(
                client,
                of: checkpoint,
                kept: answers.kept,
                temperature: answers.temperature,
                patience: patience
            )
            let generated = identity.map { identity in
                GeneratedAnswers(identity) { request in
                    try await patience.untilAnswered(by: endpoint) { try await client.generate(request) }
                }
            }
            return try await body(Served(teacher: teacher, answers: generated))
        }
    }

    private static func configuration(_ settings: Settings, _ endpoint: Endpoint) throws -> GatewayClientConfiguration {
        var configuration = GatewayClientConfiguration.defaults
        configuration.token = try SecuritySettings.token(settings).map { try BearerToken($0) }
        let options = try SecuritySettings.client(settings, host: endpoint.host, endpoint: endpoint.description)
        // Without TLS the connection is to loopback, or a setting allows plaintext.
        configuration.security = options.map { .tls($0) } ?? .plaintext
        return configuration
    }
}
