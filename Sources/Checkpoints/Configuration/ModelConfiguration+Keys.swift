// SPDX-License-Identifier: Apache-2.0

internal import JSONValues

extension ModelConfiguration {
    /// Names that transformers also takes for keys of its configurations (`attribute_map`), and what they mean.
    private static let otherNames = [
        ("hidden_size", "d_model"), ("num_attention_heads", "num_heads"), ("num_hidden_layers", "num_layers"),
        ("head_dim", "d_kv"),
    ]

    /// Gives every value of a `config.json` the name that it is read by here.
    ///
    /// - Parameters:
    ///   - config: The file's object.
    ///   - overrides: The caller's keys, which stand above the file's under either name.
    ///   - file: The file's path.
    /// - Returns: The object, in which other names' values are also under the usual names.
    /// - Throws: `CheckpointError` for two names of one thing with different values, and for a quantization that is not
    ///   made here.
    static func usualNames(
        of config: [String: JSONValue],
        overrides: [String: JSONValue],
        file: String
    ) throws(CheckpointError) -> [String: JSONValue] {
        var values = config
        for (other, usual) in self.otherNames where overrides[usual] == nil {
            guard let value = config[other], value != .null else { continue }
            guard let own = config[usual] else {
                values[usual] = value
                continue
            }
            guard own == value else {
                throw CheckpointError(
                    code: .invalidConfiguration,
                    message: "\(other) is \(value.brief), and \(usual), which is the same thing, is \(own.brief); "
                        + "remove one of them from the file, or override \(usual)",
                    file: file
                )
            }
        }
        if let quantization = config["quantization_config"], quantization != .null {
            throw CheckpointError(
                code: .unsupported,
                message:
                    "quantization_config is \(quantization.brief), by which transformers would change the weights, and "
                    + "is not supported; set it to null in the file to serve the weights as they are",
                file: file
            )
        }
        return values
    }
}
