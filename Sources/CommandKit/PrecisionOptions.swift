// SPDX-License-Identifier: Apache-2.0

package import ArgumentParser
import ServiceKit
package import SwitchModel
package import SwitchyardTypes
import TensorKernels

/// Ways to keep weights and to send rows, by name.
package enum PrecisionNames {
    /// A way to keep weights.
    ///
    /// - Parameter text: Its name.
    /// - Returns: The way.
    /// - Throws: `Settings.Failure` naming the choices.
    package static func storage(_ text: String) throws -> WeightStorage {
        guard let storage = WeightStorage(rawValue: text) else {
            throw Self.failure("dtype", text, WeightStorage.allCases.map(\.rawValue))
        }
        return storage
    }

    /// A type of rows.
    ///
    /// - Parameter text: Its name.
    /// - Returns: The type.
    /// - Throws: `Settings.Failure` naming the choices.
    package static func row(_ text: String) throws -> DType {
        guard let type = DType(rawValue: text), type.isRow else {
            throw Self.failure("wire-dtype", text, DType.rows.map(\.description))
        }
        return type
    }

    private static func failure(_ key: String, _ text: String, _ names: [String]) -> Settings.Failure {
        Settings.Failure("\(key) is \"\(text)\", but must be one of \(names.joined(separator: ", "))")
    }
}

/// How a model in this process keeps its weights.
package struct LocalPrecisionOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "How weights are kept: checkpoint (as stored), float32, bfloat16 or int8. (default: checkpoint)",
            valueName: "type"
        ),
        transform: PrecisionNames.storage
    )
    package var dtype: WeightStorage?

    @Option(
        help: ArgumentHelp("How the experts' weights are kept, if different.", valueName: "type"),
        transform: PrecisionNames.storage
    )
    package var expertDtype: WeightStorage?

    /// Keeps everything as it is in the checkpoint.
    package init() {}

    /// Whether anything was chosen.
    package var isGiven: Bool { self.dtype != nil || self.expertDtype != nil }

    /// How to keep all weights but the experts'.
    package var model: WeightStorage { self.dtype ?? .checkpoint }

    /// How to keep the experts' weights.
    package var experts: WeightStorage { self.expertDtype ?? self.model }

    /// The choice in words, for the head of a table.
    package var words: String { Self.describe(self.model, self.experts) }

    package static func describe(_ model: WeightStorage, _ experts: WeightStorage) -> String {
        "weights: \(model)" + (model == experts ? "" : ", experts \(experts)")
    }
}

/// How the processes of a cluster on this machine keep their weights, and how rows travel between them.
package struct ClusterPrecisionOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "How weights are kept: checkpoint (as stored), float32, bfloat16 or int8. (default: checkpoint)",
            valueName: "type"
        ),
        transform: PrecisionNames.storage
    )
    package var dtype: WeightStorage?

    @Option(
        help: ArgumentHelp("How the expert hosts' weights are kept, if different.", valueName: "type"),
        transform: PrecisionNames.storage
    )
    package var expertDtype: WeightStorage?

    @Option(
        help: ArgumentHelp(
            "How token rows travel to the expert hosts and back: float32 or bfloat16. (default: float32)",
            valueName: "type"
        ),
        transform: PrecisionNames.row
    )
    package var wireDtype: DType?

    @Flag(help: "Store the experts' weights packed in that type, for hosts to map and serve directly.")
    package var packed = false

    /// Keeps everything as it is in the checkpoint.
    package init() {}

    /// How the experts' shards are packed; nil if they are not.
    package var packing: WeightStorage? { self.packed ? self.experts ?? .checkpoint : nil }

    private var experts: WeightStorage? { self.expertDtype ?? self.dtype }

    /// Passes the choice on to the processes.
    ///
    /// - Parameter layout: The cluster.
    package func apply(to layout: inout LocalCluster.Layout) {
        if let dtype { layout.gatewayArguments += ["--dtype", "\(dtype)"] }
        if let wireDtype { layout.gatewayArguments += ["--wire-dtype", "\(wireDtype)"] }
        if let experts { layout.hostArguments += ["--dtype", "\(experts)"] }
    }

    /// The choice in words, for the head of a table.
    package var words: String {
        let weights = LocalPrecisionOptions.describe(self.dtype ?? .checkpoint, self.experts ?? .checkpoint)
        return "\(weights)\(self.packed ? ", packed" : ""); rows: \(self.wireDtype ?? .float32)"
    }
}
