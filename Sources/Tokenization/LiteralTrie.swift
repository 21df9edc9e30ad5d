// SPDX-License-Identifier: Apache-2.0

/// Literals that are looked for in a text.
struct LiteralTrie: Sendable {
    /// A literal's position in a text.
    struct Match: Equatable {
        /// The literal's bytes.
        var range: Range<Int>

        /// Its id.
        var id: Int32
    }

    /// A node of a trie over the literals' bytes.
    private struct Node {
        var children: [(byte: UInt8, node: Int)] = []
        var id: Int32?

        func child(_ byte: UInt8) -> Int? {
            self.children.first { $0.byte == byte }?.node
        }
    }

    private var nodes = [Node()]

    /// Which bytes a literal can start with, so that most of a text is skipped quickly.
    private var starts = [Bool](repeating: false, count: 256)

    /// Adds a literal; one that is there already keeps its id.
    ///
    /// - Parameters:
    ///   - literal: Its UTF-8, not empty.
    ///   - id: Its id.
    mutating func insert(_ literal: [UInt8], id: Int32) {
        var node = 0
        for byte in literal {
            if node == 0 { self.starts[Int(byte)] = true }
            if let child = self.nodes[node].child(byte) {
                node = child
            } else {
                self.nodes[node].children.append((byte, self.nodes.count))
                node = self.nodes.count
                self.nodes.append(Node())
            }
        }
        self.nodes[node].id = self.nodes[node].id ?? id
    }

    /// Finds the next literal.
    ///
    /// - Parameters:
    ///   - text: The text's UTF-8.
    ///   - start: Where to begin.
    /// - Returns: The first literal and, of several that begin there, the longest; nil when there is none.
    func firstMatch(in text: UnsafeBufferPointer<UInt8>, from start: Int) -> Match? {
        var position = start
        while position < text.count {
            if self.starts[Int(text[position])], let match = self.longestMatch(in: text, at: position) {
                return match
            }
            position += 1
        }
        return nil
    }

    private func longestMatch(in text: UnsafeBufferPointer<UInt8>, at start: Int) -> Match? {
        var found: Match?
        var node = 0
        var position = start
        while position < text.count, let child = self.nodes[node].child(text[position]) {
            node = child
            position += 1
            if let id = self.nodes[node].id {
                found = Match(range: start..<position, id: id)
            }
        }
        return found
    }
}
