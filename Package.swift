// swift-tools-version: 6.2
// SPDX-License-Identifier: Apache-2.0

import PackageDescription

// MARK: - Settings

/// Warnings stop the build where the environment says that it is a continuous-integration run.
let warningsAreErrors = Context.environment["CI"] != nil

let swiftSettings: [SwiftSetting] =
    [
        .swiftLanguageMode(.v6),
        .enableUpcomingFeature("ExistentialAny"),
        .enableUpcomingFeature("InternalImportsByDefault"),
        .enableUpcomingFeature("MemberImportVisibility"),
        .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
    ] + (warningsAreErrors ? [.treatAllWarnings(as: .error)] : [])

/// Kernels are optimised in every build.
///
/// Without it they take most of the tests' time, and are not the ones that people run.
let optimized: [CSetting] = [.unsafeFlags(["-O2"], .when(configuration: .debug))]

let nioCore = Target.Dependency.product(name: "NIOCore", package: "swift-nio")
let nioPosix = Target.Dependency.product(name: "NIOPosix", package: "swift-nio")
let nioEmbedded = Target.Dependency.product(name: "NIOEmbedded", package: "swift-nio")
let nioHTTP1 = Target.Dependency.product(name: "NIOHTTP1", package: "swift-nio")
let hummingbirdCore = Target.Dependency.product(name: "HummingbirdCore", package: "hummingbird")
let hummingbirdHTTP2 = Target.Dependency.product(name: "HummingbirdHTTP2", package: "hummingbird")
let httpTypes = Target.Dependency.product(name: "HTTPTypes", package: "swift-http-types")
let nioTLS = Target.Dependency.product(name: "NIOTLS", package: "swift-nio")
let nioSSL = Target.Dependency.product(name: "NIOSSL", package: "swift-nio-ssl")
let logging = Target.Dependency.product(name: "Logging", package: "swift-log")
let metrics = Target.Dependency.product(name: "Metrics", package: "swift-metrics")
let metricsTestKit = Target.Dependency.product(name: "MetricsTestKit", package: "swift-metrics")
let serviceLifecycle = Target.Dependency.product(name: "ServiceLifecycle", package: "swift-service-lifecycle")
let unixSignals = Target.Dependency.product(name: "UnixSignals", package: "swift-service-lifecycle")
let configuration = Target.Dependency.product(name: "Configuration", package: "swift-configuration")
let systemPackage = Target.Dependency.product(name: "SystemPackage", package: "swift-system")
let subprocess = Target.Dependency.product(name: "Subprocess", package: "swift-subprocess")
let argumentParser = Target.Dependency.product(name: "ArgumentParser", package: "swift-argument-parser")

let package = Package(
    name: "switchyard",
    products: [
        .library(name: "SwitchyardClient", targets: ["SwitchyardClient"]),
        .executable(name: "switchyard", targets: ["switchyard"]),
        .executable(name: "switchyard-bench", targets: ["switchyard-bench"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.0"),
        .package(url: "https://github.com/apple/swift-nio-ssl", from: "2.37.0"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.0"),
        .package(url: "https://github.com/apple/swift-metrics", from: "2.13.0"),
        .package(url: "https://github.com/apple/swift-configuration", from: "1.4.0"),
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.0"),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
        .package(url: "https://github.com/hummingbird-project/hummingbird", from: "2.28.0", traits: []),
        .package(url: "https://github.com/apple/swift-http-types", from: "1.8.0", traits: []),
        .package(url: "https://github.com/apple/swift-system", from: "1.8.0"),
        .package(url: "https://github.com/swiftlang/swift-subprocess", from: "1.0.2", traits: []),
    ],
    targets: [
        // MARK: - C edge

        .systemLibrary(name: "CNGHTTP2", pkgConfig: "libnghttp2", providers: [.apt(["libnghttp2-dev"])]),
        .systemLibrary(name: "COpenBLAS", pkgConfig: "openblas", providers: [.apt(["libopenblas-dev"])]),
        .systemLibrary(name: "CZlib", pkgConfig: "zlib", providers: [.apt(["zlib1g-dev"])]),
        .systemLibrary(name: "CProtobufC", pkgConfig: "libprotobuf-c", providers: [.apt(["libprotobuf-c-dev"])]),
        .systemLibrary(name: "CCurl", pkgConfig: "libcurl", providers: [.apt(["libcurl4-openssl-dev"])]),
        .systemLibrary(name: "COpenSSL", pkgConfig: "libcrypto", providers: [.apt(["libssl-dev"])]),
        .target(name: "CEpoll"),
        .target(name: "CSwitchyardProtos", dependencies: ["CProtobufC"]),
        .target(name: "CSentencePiece", linkerSettings: [.linkedLibrary("sentencepiece")]),
        .target(name: "CKernels", cSettings: optimized),

        // MARK: - The ground floor: words that both wings use, and no import

        .target(name: "SwitchyardTypes", swiftSettings: swiftSettings),

        // MARK: - Under both wings

        .target(name: "Digests", dependencies: ["COpenSSL"], swiftSettings: swiftSettings),
        .target(name: "JSONValues", swiftSettings: swiftSettings),

        // MARK: - The model's wing: knows no network

        .target(
            name: "TensorKernels",
            dependencies: ["SwitchyardTypes", "CKernels"],
            swiftSettings: swiftSettings
        ),
        .target(
            name: "Checkpoints",
            dependencies: ["SwitchyardTypes", "Digests", "JSONValues"],
            swiftSettings: swiftSettings
        ),
        .target(
            name: "Tokenization",
            dependencies: ["SwitchyardTypes", "CSentencePiece", "JSONValues"],
            swiftSettings: swiftSettings
        ),
        .target(
            name: "SwitchModel",
            dependencies: ["SwitchyardTypes", "TensorKernels", "Checkpoints"],
            swiftSettings: swiftSettings
        ),

        .target(
            name: "SwitchTraining",
            dependencies: ["SwitchyardTypes", "SwitchModel", "Checkpoints", "TensorKernels", "CKernels"],
            swiftSettings: swiftSettings
        ),

        .target(
            name: "TrainingData",
            dependencies: ["SwitchyardTypes", "Tokenization", "JSONValues"],
            swiftSettings: swiftSettings
        ),
        .target(
            name: "TrainingRuns",
            dependencies: [
                "SwitchyardTypes", "SwitchTraining", "TrainingData", "SwitchModel", "Checkpoints", "Tokenization",
                "TensorKernels", "Figures",
            ],
            swiftSettings: swiftSettings
        ),
        .target(name: "Figures", swiftSettings: swiftSettings),

        // MARK: - The network's wing: knows no model

        .target(name: "RPCCore", swiftSettings: swiftSettings),
        .target(
            name: "SwitchyardProtos",
            dependencies: ["SwitchyardTypes", "CSwitchyardProtos", "CProtobufC"],
            swiftSettings: swiftSettings
        ),
        .target(
            name: "MessageJSON",
            dependencies: ["SwitchyardProtos", "RPCCore", "JSONValues"],
            swiftSettings: swiftSettings
        ),
        .target(
            name: "Receipts",
            dependencies: ["SwitchyardTypes", "SwitchyardProtos", "MessageJSON", "Digests", "JSONValues"],
            swiftSettings: swiftSettings
        ),
        .target(
            name: "Batches",
            dependencies: ["SwitchyardProtos", "MessageJSON", "JSONValues", "RPCCore"],
            swiftSettings: swiftSettings
        ),
        .target(name: "HTTP2Session", dependencies: ["CNGHTTP2", nioCore], swiftSettings: swiftSettings),
        .target(
            name: "RPCTransport",
            dependencies: [
                "SwitchyardTypes", "RPCCore", "HTTP2Session", "CZlib", "CEpoll", nioCore, nioPosix, nioTLS, nioSSL,
                logging,
            ],
            swiftSettings: swiftSettings
        ),
        .target(
            name: "CertificateAuthority",
            dependencies: ["COpenSSL"],
            swiftSettings: swiftSettings
        ),

        .target(
            name: "WeightFetching",
            dependencies: ["SwitchyardTypes", "CCurl", "Digests", "JSONValues"],
            swiftSettings: swiftSettings
        ),

        // MARK: - Pure machines of the serving side

        .target(name: "BatchScheduling", dependencies: ["SwitchyardTypes"], swiftSettings: swiftSettings),
        .target(name: "ExpertPooling", dependencies: ["SwitchyardTypes", "RPCCore"], swiftSettings: swiftSettings),

        // MARK: - Serving

        .target(
            name: "Telemetry",
            dependencies: ["SwitchyardTypes", nioCore, nioPosix, nioHTTP1, logging, metrics, serviceLifecycle],
            swiftSettings: swiftSettings
        ),
        .target(
            name: "ServiceKit",
            dependencies: [
                "SwitchyardTypes", "RPCTransport", "RPCCore", "SwitchyardProtos", "Telemetry", "Digests", nioCore,
                serviceLifecycle,
                logging,
                metrics, configuration, systemPackage, unixSignals,
            ],
            swiftSettings: swiftSettings
        ),
        .target(
            name: "ExpertServing",
            dependencies: [
                "SwitchyardTypes", "SwitchModel", "TensorKernels", "Checkpoints", "SwitchyardProtos", "RPCCore",
                "RPCTransport",
                "ServiceKit", "Telemetry", "BatchScheduling",
                nioCore, logging, metrics, serviceLifecycle,
            ],
            swiftSettings: swiftSettings
        ),
        .target(
            name: "OpenInference",
            dependencies: ["SwitchyardTypes", "SwitchyardProtos", "MessageJSON", "JSONValues", "RPCCore"],
            swiftSettings: swiftSettings
        ),
        .target(
            name: "GatewayServing",
            dependencies: [
                "SwitchyardTypes", "SwitchModel", "TensorKernels", "Checkpoints", "Tokenization", "BatchScheduling",
                "ExpertPooling", "Receipts", "OpenInference", "JSONValues",
                "SwitchyardProtos", "RPCCore", "RPCTransport", "ServiceKit", "Telemetry", nioCore, logging, metrics,
                serviceLifecycle,
            ],
            swiftSettings: swiftSettings
        ),
        // The page is a target of its own, so that it is compiled once and not with every change beside it.
        .target(name: "DoorPage", resources: [.embedInCode("Page")], swiftSettings: swiftSettings),
        .target(
            name: "HTTPDoor",
            dependencies: [
                "DoorPage", "SwitchyardTypes", "SwitchyardProtos", "MessageJSON", "JSONValues", "OpenInference",
                "RPCCore", "RPCTransport",
                "ServiceKit", "Telemetry", hummingbirdCore, hummingbirdHTTP2, httpTypes, nioCore, nioPosix, nioTLS,
                logging,
            ],
            swiftSettings: swiftSettings
        ),
        .target(
            name: "ExpertTraining",
            dependencies: [
                "SwitchyardTypes", "SwitchTraining", "SwitchModel", "TensorKernels", "Checkpoints",
                "SwitchyardProtos", "RPCCore", "RPCTransport", "ServiceKit", "Telemetry", nioCore, logging, metrics,
                serviceLifecycle,
            ],
            swiftSettings: swiftSettings
        ),
        .target(
            name: "SwitchyardClient",
            dependencies: ["SwitchyardTypes", "SwitchyardProtos", "RPCCore", "RPCTransport", nioCore, logging],
            swiftSettings: swiftSettings
        ),
        .target(
            name: "CommandKit",
            dependencies: [
                "SwitchyardTypes", "GatewayServing", "ServiceKit", "SwitchModel", "Checkpoints", "TensorKernels",
                argumentParser, subprocess, systemPackage,
            ],
            swiftSettings: swiftSettings
        ),
        .executableTarget(
            name: "switchyard",
            dependencies: [
                "SwitchyardTypes", "CommandKit", "SwitchyardClient", "GatewayServing", "ExpertServing",
                "ExpertTraining", "ServiceKit",
                "Telemetry",
                "ExpertPooling", "BatchScheduling", "RPCTransport", "RPCCore", "SwitchyardProtos", "SwitchModel",
                "SwitchTraining", "TrainingData", "TrainingRuns", "Tokenization", "Checkpoints",
                "TensorKernels",
                "CertificateAuthority", "WeightFetching", "Receipts", "HTTPDoor", "Batches",
                argumentParser, unixSignals, serviceLifecycle, logging, metrics,
            ],
            swiftSettings: swiftSettings
        ),

        // MARK: - The workshop: benchmarks and the simulator; `switchyard` is built without it

        .target(
            name: "LossyExperts",
            dependencies: ["SwitchyardTypes", "SwitchModel", "Checkpoints"],
            swiftSettings: swiftSettings
        ),
        .target(
            name: "PoolSimulation",
            dependencies: ["SwitchyardTypes", "ExpertPooling", "BatchScheduling"],
            swiftSettings: swiftSettings
        ),
        .target(
            name: "FaultSimulation",
            dependencies: [
                "SwitchyardTypes", "PoolSimulation", "BatchScheduling", "ExpertPooling", "RPCCore", "HTTP2Session",
                nioCore,
            ],
            swiftSettings: swiftSettings
        ),
        .executableTarget(
            name: "switchyard-bench",
            dependencies: [
                "SwitchyardTypes", "CommandKit", "Figures", "TrainingRuns", "TrainingData",
                "SwitchTraining", "LossyExperts", "PoolSimulation", "FaultSimulation",
                "SwitchyardClient",
                "GatewayServing", "ExpertServing",
                "ServiceKit", "ExpertPooling", "RPCTransport", "RPCCore", "SwitchyardProtos", "SwitchModel",
                "Tokenization", "Checkpoints", "TensorKernels", "CKernels", "COpenBLAS", argumentParser, subprocess,
                systemPackage, logging, nioCore, nioPosix,
            ],
            swiftSettings: swiftSettings
        ),

        // MARK: - Tests

        .testTarget(name: "DigestsTests", dependencies: ["Digests"], swiftSettings: swiftSettings),
        .testTarget(name: "SwitchyardTypesTests", dependencies: ["SwitchyardTypes"], swiftSettings: swiftSettings),
        .testTarget(
            name: "TensorKernelsTests",
            dependencies: ["SwitchyardTypes", "TensorKernels"],
            swiftSettings: swiftSettings
        ),
        .testTarget(
            name: "CheckpointsTests",
            dependencies: ["SwitchyardTypes", "Checkpoints", "JSONValues"],
            exclude: ["Fixtures"],
            swiftSettings: swiftSettings
        ),
        .testTarget(
            name: "TokenizationTests",
            dependencies: ["Tokenization"],
            exclude: ["Fixtures"],
            swiftSettings: swiftSettings
        ),
        .testTarget(
            name: "TrainingDataTests",
            dependencies: ["TrainingData", "Tokenization"],
            exclude: ["Fixtures"],
            swiftSettings: swiftSettings
        ),
        .testTarget(
            name: "SwitchModelTests",
            dependencies: [
                "SwitchyardTypes", "SwitchModel", "LossyExperts", "TensorKernels", "Checkpoints", "Tokenization",
            ],
            exclude: ["Fixtures"],
            swiftSettings: swiftSettings
        ),
        .testTarget(
            name: "SwitchTrainingTests",
            dependencies: ["SwitchyardTypes", "SwitchTraining", "SwitchModel", "Checkpoints", "TensorKernels"],
            exclude: ["Fixtures"],
            swiftSettings: swiftSettings
        ),
        .testTarget(
            name: "ExpertTrainingTests",
            dependencies: [
                "SwitchyardTypes", "ExpertTraining", "SwitchTraining", "SwitchModel", "Checkpoints", "TensorKernels",
                "SwitchyardProtos", "RPCCore", "RPCTransport", nioCore, logging, metrics,
            ],
            swiftSettings: swiftSettings
        ),
        .testTarget(
            name: "TrainingRunsTests",
            dependencies: [
                "SwitchyardTypes", "TrainingRuns", "SwitchTraining", "TrainingData", "SwitchModel", "Checkpoints",
                "Tokenization", "TensorKernels", "PeerTools",
            ],
            swiftSettings: swiftSettings
        ),
        .testTarget(name: "RPCCoreTests", dependencies: ["RPCCore"], swiftSettings: swiftSettings),
        .testTarget(
            name: "ReceiptsTests",
            dependencies: ["Receipts", "SwitchyardProtos"],
            swiftSettings: swiftSettings
        ),
        .testTarget(name: "SwitchyardProtosTests", dependencies: ["SwitchyardProtos"], swiftSettings: swiftSettings),
        .testTarget(
            name: "HTTP2SessionTests",
            dependencies: ["HTTP2Session", "CNGHTTP2", nioCore],
            swiftSettings: swiftSettings
        ),
        .testTarget(
            name: "RPCTransportTests",
            dependencies: [
                "SwitchyardTypes", "RPCTransport", "HTTP2Session", "RPCCore", "CertificateAuthority", nioCore, nioPosix,
                nioEmbedded,
                nioTLS,
                nioSSL, logging,
            ],
            swiftSettings: swiftSettings
        ),
        .testTarget(
            name: "CertificateAuthorityTests",
            dependencies: ["CertificateAuthority", subprocess, systemPackage],
            swiftSettings: swiftSettings
        ),
        .testTarget(
            name: "WeightFetchingTests",
            dependencies: [
                "WeightFetching", "CCurl", "CertificateAuthority", "Checkpoints", "Digests", "PeerTools", "switchyard",
                nioCore, nioPosix, nioHTTP1, nioSSL, subprocess, systemPackage,
            ],
            swiftSettings: swiftSettings
        ),
        .testTarget(name: "BatchSchedulingTests", dependencies: ["BatchScheduling"], swiftSettings: swiftSettings),
        .testTarget(
            name: "ExpertPoolingTests",
            dependencies: ["SwitchyardTypes", "ExpertPooling", "RPCCore"],
            swiftSettings: swiftSettings
        ),
        .testTarget(
            name: "PoolSimulationTests",
            dependencies: ["SwitchyardTypes", "PoolSimulation", "ExpertPooling"],
            swiftSettings: swiftSettings
        ),
        .testTarget(
            name: "FaultSimulationTests",
            dependencies: ["FaultSimulation"],
            swiftSettings: swiftSettings
        ),
        .testTarget(
            name: "SwitchyardBenchTests",
            dependencies: [
                "SwitchyardTypes", "switchyard-bench", "switchyard", "CommandKit", "ExpertPooling", "Figures",
                "PoolSimulation",
                "PeerTools", "Checkpoints", "TensorKernels", "Tokenization",
            ],
            swiftSettings: swiftSettings
        ),
        .testTarget(
            name: "ServiceKitTests",
            dependencies: [
                "ServiceKit", "RPCTransport", "RPCCore", "SwitchyardProtos", nioCore, serviceLifecycle, logging,
            ],
            swiftSettings: swiftSettings
        ),
        .testTarget(
            name: "TelemetryTests",
            dependencies: ["Telemetry", "PeerTools", nioCore, nioPosix, logging, metrics, serviceLifecycle],
            swiftSettings: swiftSettings
        ),
        .testTarget(
            name: "SwitchyardClientTests",
            dependencies: ["SwitchyardClient", "SwitchyardProtos", "RPCCore", "RPCTransport", nioCore, logging],
            swiftSettings: swiftSettings
        ),
        .testTarget(
            name: "HTTPDoorTests",
            dependencies: [
                "HTTPDoor", "DoorPage", "MessageJSON", "JSONValues", "OpenInference", "SwitchyardProtos", "RPCCore",
                "PeerTools",
                nioCore,
                nioEmbedded,
                httpTypes,
            ],
            swiftSettings: swiftSettings
        ),
        .testTarget(
            name: "OpenInferenceTests",
            dependencies: ["OpenInference", "SwitchyardProtos", "RPCCore"],
            swiftSettings: swiftSettings
        ),
        .testTarget(
            name: "BatchesTests",
            dependencies: ["Batches", "SwitchyardProtos", "RPCCore"],
            swiftSettings: swiftSettings
        ),
        .testTarget(
            name: "ServingTests",
            dependencies: [
                "SwitchyardTypes", "GatewayServing", "ExpertServing", "LossyExperts", "SwitchyardClient", "SwitchModel",
                "TensorKernels",
                "Checkpoints",
                "Tokenization", "BatchScheduling", "ExpertPooling", "SwitchyardProtos", "RPCCore", "RPCTransport",
                "ServiceKit", "Telemetry", "Receipts", nioCore, logging, metrics, metricsTestKit,
            ],
            swiftSettings: swiftSettings
        ),
        .testTarget(
            name: "ClusterTests",
            dependencies: [
                "SwitchyardTypes", "SwitchyardClient", "ServiceKit", "RPCTransport", "RPCCore", "SwitchyardProtos",
                "Checkpoints", "ExpertPooling", "ExpertTraining", "TensorKernels",
                "SwitchModel", "Telemetry", "CommandKit", "CertificateAuthority", "switchyard",
                "switchyard-bench", "PeerTools", "FaultTools", argumentParser, subprocess,
                systemPackage, nioCore, nioPosix,
                logging,
            ],
            swiftSettings: swiftSettings
        ),
        .testTarget(name: "RepositoryTests", swiftSettings: swiftSettings),

        // MARK: - Fuzzing

        .target(
            name: "FuzzTargets",
            dependencies: [
                "SwitchyardTypes", "HTTP2Session", "RPCCore", "SwitchyardProtos", "Checkpoints", "Tokenization",
                "WeightFetching", "ServiceKit", "RPCTransport", "CertificateAuthority", "Receipts", nioCore, logging,
            ],
            path: "Tests/Fuzzing/FuzzTargets",
            swiftSettings: swiftSettings
        ),
        .executableTarget(
            name: "switchyard-fuzz",
            dependencies: ["FuzzTargets"],
            path: "Tests/Fuzzing/FuzzDriver",
            swiftSettings: swiftSettings
        ),
        .testTarget(
            name: "FuzzTests",
            dependencies: ["FuzzTargets"],
            path: "Tests/Fuzzing/FuzzTests",
            swiftSettings: swiftSettings
        ),

        // MARK: - Clusters under faults; in no product

        .target(
            name: "FaultTools",
            dependencies: [
                "Figures", "SwitchyardClient", "SwitchyardProtos", "Receipts", "RPCTransport", "RPCCore", nioCore,
                nioPosix,
                logging,
                subprocess,
                systemPackage,
            ],
            path: "Tests/FaultTools",
            swiftSettings: swiftSettings
        ),
        .executableTarget(
            name: "switchyard-faults",
            dependencies: ["FaultTools", argumentParser],
            path: "Tests/switchyard-faults",
            swiftSettings: swiftSettings
        ),

        // MARK: - Training's speed beside PyTorch's; in no product

        .executableTarget(
            name: "training-speed",
            dependencies: ["SwitchyardTypes", "SwitchTraining", "SwitchModel", "Checkpoints", "TensorKernels"],
            path: "Tests/training-speed",
            exclude: ["torch_speed.py"],
            swiftSettings: swiftSettings
        ),

        // MARK: - The transport against other people's gRPC; in no product

        .target(
            name: "InteropCases",
            dependencies: ["RPCTransport", "RPCCore", nioCore, logging],
            path: "Tests/InteropCases",
            swiftSettings: swiftSettings
        ),
        .executableTarget(
            name: "switchyard-interop",
            dependencies: ["InteropCases", "RPCTransport", "RPCCore", argumentParser, logging, nioCore],
            path: "Tests/switchyard-interop",
            swiftSettings: swiftSettings
        ),
        .target(
            name: "PeerTools",
            dependencies: [subprocess, systemPackage],
            path: "Tests/PeerTools",
            swiftSettings: swiftSettings
        ),
        .testTarget(
            name: "InteropTests",
            dependencies: [
                "InteropCases", "switchyard-interop", "PeerTools", "RPCTransport", "RPCCore", nioCore, nioPosix,
                logging,
            ],
            swiftSettings: swiftSettings
        ),
        .testTarget(
            name: "AttackTests",
            dependencies: [
                "switchyard-interop", "switchyard", "PeerTools", "FaultTools", "CNGHTTP2", "RPCTransport", "RPCCore",
                nioCore,
                logging,
            ],
            swiftSettings: swiftSettings
        ),
    ],
    cLanguageStandard: .c11,
    cxxLanguageStandard: .cxx17
)
