// SPDX-License-Identifier: Apache-2.0

internal import JSONValues
internal import RPCCore
internal import SwitchyardProtos

/// A body of `/v2/models/NAME/infer`, and the message of gRPC that it means.
///
/// Source: https://github.com/kserve/open-inference-protocol/blob/29ca333e3a6f86e2232108850a170696e28e256f/specification/protocol/inference_rest.md,
/// and for tensors as bytes after the JSON
/// https://github.com/triton-inference-server/server/blob/r25.01/docs/protocol/extension_binary_data.md.
struct InferBody: Sendable {
    /// The message.
    var request: ModelInferRequest
    /// Whether outputs travel as bytes where nothing is said of them.
    private var isBinary = false
    /// What is said of single outputs.
    private var binaryOutputs: [String: Bool] = [:]

    /// The fields of the body.
    static let fields: [BodyField] = [
        BodyField("id", "A name for the request, which the answer repeats.", ["type": ["string", "null"]]),
        BodyField(
            "parameters",
            "Fields of switchyard.v1.GenerationParameters, and strict, max_dropped_fraction, queue_timeout_ms, priority and timeout.",
            Self.parameterSchema
        ),
        BodyField("inputs", "One tensor: text_input or input_ids.", ["type": "array", "items": Self.inputSchema]),
        BodyField(
            "outputs",
            "The tensors that are wanted; all, if it is left out.",
            ["type": ["array", "null"], "items": Self.outputSchema]
        ),
    ]

    private static let parameterSchema: JSONOutput = [
        "type": ["object", "null"], "additionalProperties": ["type": ["boolean", "integer", "number", "string"]],
    ]
    private static let inputSchema: JSONOutput = [
        "type": "object", "required": ["name", "shape", "datatype"], "additionalProperties": false,
        "properties": .object(Self.inputFields.map { (name: $0.name, value: $0.schema) }),
    ]
    private static let outputSchema: JSONOutput = [
        "type": "object", "required": ["name"], "additionalProperties": false,
        "properties": .object(Self.outputFields.map { (name: $0.name, value: $0.schema) }),
    ]
    private static let inputFields: [BodyField] = [
        BodyField("name", "text_input or input_ids.", ["enum": ["text_input", "input_ids"]]),
        BodyField(
            "shape",
            "The lengths of the axes.",
            ["type": "array", "items": ["type": "integer", "minimum": 1], "minItems": 1, "maxItems": 2]
        ),
        BodyField("datatype", "The type of the elements.", ["enum": ["BYTES", "INT64", "INT32", "UINT32", "UINT64"]]),
        BodyField(
            "parameters",
            "binary_data_size: the bytes of the tensor after the JSON.",
            [
                "type": ["object", "null"], "additionalProperties": false,
                "properties": ["binary_data_size": ["type": "integer", "minimum": 0]],
            ]
        ),
        BodyField(
            "data",
            "The elements, row by row; lists inside the list are taken as one.",
            ["type": ["array", "null"], "items": ["type": ["string", "integer", "array"]]]
        ),
    ]
    private static let outputFields: [BodyField] = [
        BodyField("name", "The tensor.", ["type": "string"]),
        BodyField(
            "parameters",
            "binary_data: whether the tensor comes as bytes after the JSON.",
            [
                "type": ["object", "null"], "additionalProperties": false,
                "properties": ["binary_data": ["type": "boolean"]],
            ]
        ),
    ]

    /// Reads a body.
    ///
    /// - Parameters:
    ///   - bytes: The body.
    ///   - jsonLength: What the head says of where the JSON ends; nil if it ends with the body.
    ///   - route: The address, which names the model.
    /// - Throws: ``DoorFault`` naming the field that is wrong.
    init(_ bytes: [UInt8], jsonLength: String?, route: DoorRoute) throws(DoorFault) {
        var length = bytes.count
        if let jsonLength {
            guard let given = Int(jsonLength), (0...bytes.count).contains(given) else {
                throw DoorFault(
                    400,
                    .invalidArgument,
                    "the header inference-header-content-length is \"\(jsonLength.prefix(80))\"; the body has \(bytes.count) bytes"
                )
            }
            length = given
        }
        let reader = try BodyReader(try DoorResponder.parse(Array(bytes[..<length])), Self.fields)
        self.request = ModelInferRequest(modelName: route.model, modelVersion: route.version)
        self.request.id = try reader.text("id") ?? ""
        var parameters = try Self.parameters(reader.value("parameters"), "parameters")
        if let value = parameters.removeValue(forKey: "binary_data_output") {
            self.isBinary = try Self.flag(value, "parameters.binary_data_output")
        }
        self.request.parameters = parameters
        try self.readInputs(try reader.required("inputs", "give one tensor"), tail: bytes[length...])
        if let outputs = reader.value("outputs") { try self.readOutputs(outputs) }
    }

    // MARK: - Inputs

    private mutating func readInputs(_ value: JSONValue, tail: ArraySlice<UInt8>) throws(DoorFault) {
        guard case .array(let tensors) = value else {
            throw .invalid("inputs", "is \(value.kind); it must be a list of tensors")
        }
        var tail = tail
        for (index, element) in tensors.enumerated() {
            let place = "inputs[\(index)]"
            let reader = try BodyReader(element, Self.inputFields, path: place)
            var tensor = InferInputTensor()
            tensor.name = try Self.text(reader, "name")
            tensor.datatype = try Self.text(reader, "datatype")
            tensor.shape = try Self.shape(
                try reader.required("shape", "give the lengths of the axes"),
                "\(place).shape"
            )
            var parameters = try Self.parameters(reader.value("parameters"), "\(place).parameters")
            if let size = parameters.removeValue(forKey: "binary_data_size") {
                guard case .int64(let count) = size.value, count >= 0, count <= tail.count else {
                    throw .invalid(
                        "\(place).parameters.binary_data_size",
                        "does not fit the body, which has \(tail.count) bytes more after the JSON and the tensors before; the header "
                            + "inference-header-content-length says where the JSON ends"
                    )
                }
                guard reader.value("data") == nil else {
                    throw .invalid("\(place).data", "is there beside binary_data_size; give one of them")
                }
                self.request.rawInputContents.append(Array(tail.prefix(Int(count))))
                tail = tail.dropFirst(Int(count))
            } else {
                let data = try reader.required("data", "give the elements, or parameters.binary_data_size")
                tensor.contents = try Self.contents(data, tensor.datatype, "\(place).data")
            }
            tensor.parameters = parameters
            self.request.inputs.append(tensor)
        }
        guard tail.isEmpty else {
            throw .invalid("", "has \(tail.count) bytes after the JSON that belong to no tensor; leave them out")
        }
    }

    private static func text(_ reader: BodyReader, _ name: String) throws(DoorFault) -> String {
        let value = try reader.required(name, "give a text")
        guard case .string(let text) = value else { throw reader.wrong(name, value, "a text") }
        return text
    }

    private static func shape(_ value: JSONValue, _ place: String) throws(DoorFault) -> [Int64] {
        guard case .array(let axes) = value else {
            throw .invalid(place, "is \(value.kind); it must be a list of lengths")
        }
        var shape: [Int64] = []
        for (index, axis) in axes.enumerated() {
            guard let length = BodyReader.whole(axis) else {
                throw .invalid("\(place)[\(index)]", "is \(axis.kind); it must be a whole number")
            }
            shape.append(Int64(length))
        }
        return shape
    }

    /// The elements of a tensor; nil for a type that no input has, which is refused later and by its name.
    private static func contents(
        _ data: JSONValue,
        _ datatype: String,
        _ place: String
    ) throws(DoorFault) -> InferTensorContents? {
        guard case .array = data else { throw .invalid(place, "is \(data.kind); it must be a list of elements") }
        var elements: [JSONValue] = []
        Self.flatten(data, into: &elements)
        var contents = InferTensorContents()
        switch datatype {
        case "BYTES":
            contents.bytesContents = try Self.each(elements, place, "a text") { element in
                if case .string(let text) = element { Array(text.utf8) } else { nil }
            }
        case "INT64": contents.int64Contents = try Self.numbers(elements, place)
        case "INT32": contents.intContents = try Self.numbers(elements, place)
        case "UINT32": contents.uintContents = try Self.numbers(elements, place)
        case "UINT64": contents.uint64Contents = try Self.numbers(elements, place)
        default: return nil
        }
        return contents
    }

    private static func flatten(_ value: JSONValue, into elements: inout [JSONValue]) {
        guard case .array(let inner) = value else { return elements.append(value) }
        for element in inner { Self.flatten(element, into: &elements) }
    }

    private static func numbers<Number: FixedWidthInteger>(
        _ elements: [JSONValue],
        _ place: String
    ) throws(DoorFault) -> [Number] {
        try Self.each(elements, place, "a whole number from \(Number.min) to \(Number.max)") { element in
            BodyReader.whole(element).flatMap { Number(exactly: $0) }
        }
    }

    private static func each<Element>(
        _ elements: [JSONValue],
        _ place: String,
        _ words: String,
        _ read: (JSONValue) -> Element?
    ) throws(DoorFault) -> [Element] {
        var values: [Element] = []
        values.reserveCapacity(elements.count)
        for (index, element) in elements.enumerated() {
            guard let value = read(element) else {
                throw .invalid("\(place)[\(index)]", "is \(element.kind); it must be \(words)")
            }
            values.append(value)
        }
        return values
    }

    // MARK: - Outputs and parameters

    private mutating func readOutputs(_ value: JSONValue) throws(DoorFault) {
        guard case .array(let outputs) = value else {
            throw .invalid("outputs", "is \(value.kind); it must be a list of tensors")
        }
        for (index, element) in outputs.enumerated() {
            let place = "outputs[\(index)]"
            let reader = try BodyReader(element, Self.outputFields, path: place)
            let name = try Self.text(reader, "name")
            var parameters = try Self.parameters(reader.value("parameters"), "\(place).parameters")
            if let value = parameters.removeValue(forKey: "binary_data") {
                self.binaryOutputs[name] = try Self.flag(value, "\(place).parameters.binary_data")
            }
            self.request.outputs.append(InferRequestedOutputTensor(name: name, parameters: parameters))
        }
    }

    private static func parameters(
        _ value: JSONValue?,
        _ place: String
    ) throws(DoorFault) -> [String: InferParameter] {
        guard let value else { return [:] }
        guard case .object(let members) = value else { throw .invalid(place, "is \(value.kind); it must be an object") }
        var parameters: [String: InferParameter] = [:]
        for (name, value) in members {
            let parameter: InferParameter.Value
            switch value {
            case .bool(let flag): parameter = .bool(flag)
            case .integer(let number): parameter = .int64(Int64(number))
            case .number(let number): parameter = .double(number)
            case .string(let text): parameter = .string(text)
            case .null, .array, .object:
                throw .invalid(
                    "\(place).\(ErrorWords.shown(String(name.prefix(80))))",
                    "is \(value.kind); it must be a boolean, a number or a text"
                )
            }
            parameters[name] = InferParameter(value: parameter)
        }
        return parameters
    }

    private static func flag(_ parameter: InferParameter, _ place: String) throws(DoorFault) -> Bool {
        guard case .bool(let flag) = parameter.value else {
            throw .invalid(place, "is no boolean; it must be true or false")
        }
        return flag
    }

    /// Whether an output travels as bytes after the JSON.
    func isBinary(_ output: String) -> Bool { self.binaryOutputs[output] ?? self.isBinary }
}
