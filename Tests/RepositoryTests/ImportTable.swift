// SPDX-License-Identifier: Apache-2.0

/// Which modules each target may import: the arrows of `docs/architecture.md`, all pointing down.
enum ImportTable {
    /// The standard library's modules.
    private static let standard: Set<String> = ["Swift", "Synchronization"]

    /// Modules that every target may import: the standard library's and the ground floor.
    static let everywhere = Self.standard.union(["SwitchyardTypes"])

    /// The C library, under its names on the platforms.
    static let cLibrary: Set<String> = ["Glibc", "Musl", "Darwin"]

    /// Foundation, under its names.
    static let foundation: Set<String> = ["Foundation", "FoundationEssentials"]

    /// Modules of the toolchain: they need no entry in `Package.swift`.
    static let toolchain = Self.standard.union(Self.cLibrary).union(Self.foundation).union(["Dispatch"])

    /// The two serving targets stand on both wings.
    private static let serving: Set<String> = [
        "SwitchModel", "TensorKernels", "Checkpoints", "SwitchyardProtos", "RPCTransport", "RPCCore", "ServiceKit",
        "Telemetry", "NIOCore", "Logging", "Metrics", "ServiceLifecycle",
    ]

    /// What each target may import besides ``everywhere``.
    static let allowed: [String: Set<String>] = [
        // The ground floor, which imports nothing.
        "SwitchyardTypes": [],

        // Serving.
        "switchyard": Self.serving.union(Self.foundation).union(Self.cLibrary)
            .union([
                "CommandKit", "SwitchyardClient", "GatewayServing", "ExpertServing", "ExpertPooling",
                "BatchScheduling", "Tokenization", "CertificateAuthority", "WeightFetching", "ArgumentParser",
                "UnixSignals", "SwitchTraining", "TrainingData", "TrainingRuns", "Receipts", "ExpertTraining",
                "HTTPDoor", "Batches", "RPCCore",
            ]),
        // Files of lines: what is asked, in which order, and how answers are kept.
        "Batches": Self.foundation.union(["SwitchyardProtos", "MessageJSON", "JSONValues", "RPCCore"]),
        // What both programs' commands stand on: terminals, tables, processes and clusters of processes.
        "CommandKit": Self.foundation.union([
            "GatewayServing", "ServiceKit", "SwitchModel", "Checkpoints", "TensorKernels", "ArgumentParser",
            "Subprocess",
            "SystemPackage",
        ]),

        // The workshop. Nothing that serves stands on it, nor on OpenBLAS, which its products are compared with.
        "switchyard-bench": Self.foundation.union(Self.cLibrary)
            .union([
                "TrainingRuns", "TrainingData", "SwitchTraining", "CommandKit", "Figures", "LossyExperts",
                "PoolSimulation", "FaultSimulation",
                "SwitchyardClient",
                "GatewayServing", "ExpertServing",
                "ServiceKit",
                "ExpertPooling", "RPCTransport", "RPCCore", "SwitchyardProtos", "SwitchModel", "Tokenization",
                "Checkpoints", "TensorKernels", "CKernels", "COpenBLAS", "ArgumentParser", "Subprocess",
                "SystemPackage", "Logging", "NIOCore", "NIOPosix",
            ]),
        // An executor that loses answers, for measurements and tests.
        "LossyExperts": ["SwitchModel", "Checkpoints"],
        // Distributions need exp and log.
        "PoolSimulation": Self.cLibrary.union(["ExpertPooling", "BatchScheduling"]),
        // Every pure machine of a cluster in one loop; buffers are the codec's.
        "FaultSimulation": [
            "PoolSimulation", "BatchScheduling", "ExpertPooling", "RPCCore", "HTTP2Session", "NIOCore",
        ],

        "SwitchyardClient": ["SwitchyardProtos", "RPCTransport", "RPCCore", "NIOCore", "Logging"],
        "GatewayServing": Self.serving.union(Self.foundation).union(Self.cLibrary)
            .union([
                "Tokenization", "BatchScheduling", "ExpertPooling", "Receipts", "OpenInference", "JSONValues",
            ]),
        // Requests of the Open Inference Protocol as the gateway's, and its answers.
        "OpenInference": ["SwitchyardProtos", "MessageJSON", "JSONValues", "RPCCore"],
        // BatchScheduling: which calls are taken, and whose turn it is.
        "ExpertServing": Self.serving.union(Self.foundation).union(Self.cLibrary).union(["BatchScheduling"]),
        // The page of a gateway's HTTP listener, in source form.
        "DoorPage": [],
        // HTTP and JSON in front of a gateway, which it knows as a protocol. The C library tells the time of day.
        "HTTPDoor": Self.cLibrary.union([
            "DoorPage", "SwitchyardProtos", "MessageJSON", "JSONValues", "OpenInference", "RPCCore", "RPCTransport",
            "ServiceKit", "Telemetry",
            "HummingbirdCore", "HummingbirdHTTP2", "HTTPTypes", "NIOCore", "NIOPosix", "NIOTLS", "Logging",
        ]),
        // Experts that are trained on hosts: both ends of the protocol, and the machines that decide.
        "ExpertTraining": Self.serving.union(Self.foundation).union(Self.cLibrary).union(["SwitchTraining"]),
        // Metrics, the admin port and trace context: stands on libraries alone.
        "Telemetry": Self.foundation.union(Self.cLibrary)
            .union(["NIOCore", "NIOPosix", "NIOHTTP1", "Logging", "Metrics", "ServiceLifecycle"]),
        "ServiceKit": Self.foundation.union(Self.cLibrary)
            .union([
                "RPCTransport", "RPCCore", "SwitchyardProtos", "Telemetry", "NIOCore", "ServiceLifecycle",
                "UnixSignals",
                "Logging", "Metrics", "Configuration", "SystemPackage", "Digests",
            ]),

        // Pure machines of the serving side. Decaying averages need exp.
        "ExpertPooling": Self.cLibrary.union(["RPCCore"]),
        "BatchScheduling": [],

        // The network's wing.
        // The C library: certificate files are watched by what `stat` says of them.
        "RPCTransport": Self.cLibrary.union([
            "RPCCore", "HTTP2Session", "CZlib", "CEpoll", "NIOCore", "NIOPosix", "NIOTLS", "NIOSSL", "Logging",
            "Dispatch",
        ]),
        // Fetches files over HTTP and knows nothing of what is in them but a part's list of files.
        "WeightFetching": Self.foundation.union(["CCurl", "Digests", "JSONValues"]),
        // Makes development certificates for one command; nothing else stands on it.
        "CertificateAuthority": Self.foundation.union(Self.cLibrary).union(["COpenSSL"]),
        "HTTP2Session": ["CNGHTTP2", "NIOCore"],
        "RPCCore": [],
        "SwitchyardProtos": ["CSwitchyardProtos", "CProtobufC"],
        // Messages as JSON, from their descriptors. RPCCore: base64.
        "MessageJSON": ["SwitchyardProtos", "RPCCore", "JSONValues"],
        // What an answer was computed from, as a file with digests.
        "Receipts": ["SwitchyardProtos", "MessageJSON", "Digests", "JSONValues"],

        // Under both wings: SHA-256 from the system's libcrypto.
        "Digests": ["COpenSSL"],
        // JSON as Python writes it, for checkpoints and tokenizers.
        "JSONValues": [],

        // The model's wing. Its upper half needs the C library for exp and log alone.
        "SwitchModel": Self.cLibrary.union(["TensorKernels", "Checkpoints"]),
        // Training stands on the model's configuration, kernels and random numbers.
        "SwitchTraining": ["SwitchModel", "TensorKernels", "Checkpoints", "CKernels"],
        "Tokenization": Self.foundation.union(["CSentencePiece", "JSONValues"]),
        // Examples to learn from. The C library reads files, and perplexity needs exp.
        "TrainingData": Self.cLibrary.union(["Tokenization", "JSONValues"]),
        // Training runs: saves, metrics and figures of a run in this process.
        "TrainingRuns": Self.foundation.union([
            "SwitchTraining", "TrainingData", "SwitchModel", "Checkpoints", "Tokenization", "TensorKernels", "Figures",
        ]),
        // Plots and diagrams as SVG, of runs and of benchmarks.
        "Figures": Self.foundation,
        // Digests: the SHA-256 of every file of a part.
        "Checkpoints": Self.foundation.union(Self.cLibrary).union(["Digests", "JSONValues"]),
        "TensorKernels": Self.cLibrary.union(["CKernels"]),

        // Test tools: gRPC's interop cases over the transport alone, and how tests run other people's programs.
        "InteropCases": ["RPCTransport", "RPCCore", "NIOCore", "Logging"],
        "switchyard-interop": Self.foundation.union([
            "InteropCases", "RPCTransport", "RPCCore", "ArgumentParser", "Logging", "NIOCore",
        ]),
        "PeerTools": Self.foundation.union(["Subprocess", "SystemPackage"]),

        // Clusters under faults: a client's load, hosts that lie in the protocol or below it, and processes. The C
        // library: signals, and the kernel's queue of packets.
        "FaultTools": Self.foundation.union(Self.cLibrary)
            .union([
                "Figures", "SwitchyardClient", "SwitchyardProtos", "Receipts", "RPCTransport", "RPCCore", "NIOCore",
                "NIOPosix",
                "Logging",
                "Subprocess", "SystemPackage",
            ]),
        "switchyard-faults": Self.foundation.union(Self.cLibrary).union(["FaultTools", "ArgumentParser"]),

        "training-speed": Self.foundation.union(["SwitchTraining", "SwitchModel", "Checkpoints", "TensorKernels"]),

        // The C edge.
        "CNGHTTP2": [],
        "CZlib": [],
        "CEpoll": [],
        "COpenSSL": [],
        "CCurl": [],
        "COpenBLAS": [],
        "CProtobufC": [],
        "CSwitchyardProtos": ["CProtobufC"],
        "CSentencePiece": [],
        "CKernels": [],

        // Fuzzing, which lives below Tests: targets stand on the layers that read what peers send and what people hand to
        // a program, and on no others. Foundation: its coders. The C library: files.
        "FuzzTargets": Self.foundation.union(Self.cLibrary)
            .union([
                "HTTP2Session", "RPCCore", "SwitchyardProtos", "Checkpoints", "Tokenization", "WeightFetching",
                "ServiceKit",
                "RPCTransport", "CertificateAuthority", "Receipts", "NIOCore", "Logging",
            ]),
        "switchyard-fuzz": Self.cLibrary.union(["FuzzTargets"]),
    ]
}
