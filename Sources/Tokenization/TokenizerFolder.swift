// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import JSONValues

/// Reads a tokenizer's files from a checkpoint's folder.
enum TokenizerFolder {
    static let jsonName = "tokenizer.json"
    static let pieceName = "spiece.model"
    static let settingsName = "tokenizer_config.json"
    static let configurationName = "config.json"

    /// No tokenizer's file is larger; T5's own are 2.4 MB and 0.8 MB.
    static let maximumBytes = 256 << 20

    /// The classes of transformers that tokenize as is done here.
    private static let classes: Set<String> = ["T5Tokenizer", "T5TokenizerFast"]

    /// Reads a tokenizer's definition: `tokenizer.json` where there is one, else `spiece.model`.
    ///
    /// - Parameter directory: The folder.
    /// - Returns: The definition and the file that the pieces are from; nil where the folder has neither file.
    /// - Throws: `TokenizerError` that names the file, and the key where one is at fault.
    static func definition(
        in directory: String
    ) throws(TokenizerError) -> (definition: TokenizerDefinition, path: String)? {
        func path(_ name: String) -> String { directory + "/" + name }
        func exists(_ name: String) -> Bool { FileManager.default.fileExists(atPath: path(name)) }
        let hasJSON = exists(Self.jsonName)
        guard hasJSON || exists(Self.pieceName) else { return nil }
        let pieces = path(hasJSON ? Self.jsonName : Self.pieceName)
        var files = TokenizerSettings.Files()
        files.configuration = try JSON.object(at: path(Self.settingsName)) ?? [:]
        try Self.checkClass(files.configuration, directory: directory)
        files.specialTokens = try JSON.object(at: path("special_tokens_map.json"))
        files.addedTokens = try JSON.object(at: path("added_tokens.json"))
        let bytes = try Self.read(pieces)
        if hasJSON {
            let json = try TokenizerJSON.decode(bytes, path: pieces)
            files.fileTokens = json.added
            let settings = try Self.settings(files, directory: directory)
            return (try Self.naming(pieces) { () throws(TokenizerFileFault) in try .init(json, settings) }, pieces)
        }
        let file = try Self.pieceFile([UInt8](bytes), path: pieces)
        let settings = try Self.settings(files, directory: directory)
        return (try Self.naming(pieces) { () throws(TokenizerFileFault) in try .init(file, settings) }, pieces)
    }

    /// Reads a `spiece.model`.
    ///
    /// - Parameters:
    ///   - bytes: The whole file.
    ///   - path: The file's name in errors.
    /// - Returns: What it says.
    /// - Throws: `TokenizerError` that names the file.
    static func pieceFile(_ bytes: [UInt8], path: String) throws(TokenizerError) -> PieceFile {
        do {
            return try PieceFile(bytes: bytes)
        } catch {
            throw TokenizerError(.malformedFile, Self.notPieces(error.message), file: path)
        }
    }

    /// What to say of a file whose pieces are unusable.
    ///
    /// - Parameter fault: What is wrong.
    /// - Returns: A sentence.
    static func notPieces(_ fault: String) -> String {
        "not a SentencePiece model of a T5 tokenizer: \(fault); copy the file from the checkpoint again"
    }

    /// Reads a file.
    ///
    /// - Parameter path: The file's path.
    /// - Returns: Its content.
    /// - Throws: `TokenizerError` when it cannot be read, or is larger than a tokenizer's file can be.
    static func read(_ path: String) throws(TokenizerError) -> Data {
        do {
            let url = URL(fileURLWithPath: path).resolvingSymlinksInPath()
            let size = try FileManager.default.attributesOfItem(atPath: url.path)[.size] as? Int ?? 0
            guard size <= Self.maximumBytes else {
                throw TokenizerError(
                    .malformedFile,
                    "\(size) bytes, more than the limit of \(Self.maximumBytes); no tokenizer's file is as large",
                    file: path
                )
            }
            return try Data(contentsOf: url)
        } catch let error as TokenizerError {
            throw error
        } catch {
            throw TokenizerError(.unreadableFile, "cannot be read (\(error.localizedDescription))", file: path)
        }
    }

    private static func settings(
        _ files: TokenizerSettings.Files,
        directory: String
    ) throws(TokenizerError) -> TokenizerSettings {
        do {
            return try TokenizerSettings(files)
        } catch {
            throw TokenizerError(
                .malformedFile,
                error.message,
                file: directory + "/" + (error.file ?? Self.settingsName)
            )
        }
    }

    private static func naming(
        _ path: String,
        _ make: () throws(TokenizerFileFault) -> TokenizerDefinition
    ) throws(TokenizerError) -> TokenizerDefinition {
        do {
            return try make()
        } catch {
            throw TokenizerError(.malformedFile, error.message, file: path)
        }
    }

    /// Refuses a tokenizer of another class, which would give other ids.
    private static func checkClass(_ settings: [String: JSON], directory: String) throws(TokenizerError) {
        var value = settings["tokenizer_class"] ?? .null
        var file = Self.settingsName
        if value.isFalse {
            // Old checkpoints name it in the model's configuration, of which nothing else matters here.
            let path = directory + "/config.json"
            let model = FileManager.default.fileExists(atPath: path) ? try Self.read(path) : Data()
            value = Self.modelClass(model).map(JSON.string) ?? .null
            file = "config.json"
        }
        if case .string(let name) = value, Self.classes.contains(name) { return }
        guard value.isFalse else {
            throw TokenizerError(
                .malformedFile,
                "tokenizer_class is \(JSON.text(value)), whose ids may differ from those of T5Tokenizer, the only one that is"
                    + " read here; if the model was trained with T5Tokenizer, set \"tokenizer_class\": \"T5Tokenizer\"",
                file: directory + "/" + file
            )
        }
    }

    /// The tokenizer's class in a `config.json`; nil where it names none, and for what is no such file, which its own
    /// reader reports.
    private static func modelClass(_ bytes: Data) -> String? {
        try? TokenizerScanner.withBytes(bytes) { (bytes) throws(TokenizerFileFault) in
            var scanner = try TokenizerScanner.begin(bytes, file: "config.json", dialect: .python)
            var name: String?
            try scanner.object { (scanner, key) throws(TokenizerFileFault) in
                guard key == "tokenizer_class" else { return try scanner.skip() }
                if case .string(let text) = try scanner.value() { name = text } else { name = nil }
            }
            try scanner.end()
            return name
        }
    }
}
