// SPDX-License-Identifier: Apache-2.0

/// Assembles the lines of a response's head, as a pure machine.
///
/// Interim responses (1xx) and trailers are skipped.
struct ResponseHead {
    /// A head with more bytes than this is refused.
    static let mostBytes = 256 << 10

    /// The head is unusable.
    struct Excess: Error, Equatable {}

    private var status: Int?
    private var headers: [String: String] = [:]
    private var lastName: String?
    private var byteCount = 0
    private(set) var isComplete = false

    /// Takes a line.
    ///
    /// - Parameter line: The line with its end.
    /// - Returns: The head, at the empty line after it.
    /// - Throws: ``Excess`` for a head that is too long.
    mutating func add(_ line: UnsafeRawBufferPointer) throws(Excess) -> FileTransfer.Response? {
        guard !self.isComplete else { return nil }
        self.byteCount += line.count
        guard self.byteCount <= Self.mostBytes else { throw Excess() }
        var text = Substring(decoding: line, as: UTF8.self)
        while let last = text.unicodeScalars.last, last == "\r" || last == "\n" { text.unicodeScalars.removeLast() }
        if text.hasPrefix("HTTP/") {
            let words = text.split(separator: " ", maxSplits: 2)
            self.status = words.count > 1 ? Int(words[1]) : nil
            self.headers = [:]
            self.lastName = nil
            return nil
        }
        guard text.isEmpty else {
            self.addField(text)
            return nil
        }
        guard let status = self.status, !(100..<200).contains(status) else { return nil }
        self.isComplete = true
        return FileTransfer.Response(status: status, headers: self.headers)
    }

    /// Of several fields with one name, the first counts.
    private mutating func addField(_ text: Substring) {
        if text.first == " " || text.first == "\t" {
            // A line that continues the one before it (RFC 9112, section 5.2).
            if let name = self.lastName, let value = self.headers[name] {
                self.headers[name] = value + " " + Self.trimmed(text)
            }
            return
        }
        self.lastName = nil
        guard let colon = text.firstIndex(of: ":") else { return }
        let name = text[..<colon].lowercased()
        guard self.headers[name] == nil else { return }
        self.headers[name] = Self.trimmed(text[text.index(after: colon)...])
        self.lastName = name
    }

    private static func trimmed(_ text: Substring) -> String {
        var text = text.drop { $0 == " " || $0 == "\t" }
        while let last = text.last, last == " " || last == "\t" { text.removeLast() }
        return String(text)
    }
}
