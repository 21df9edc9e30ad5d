// SPDX-License-Identifier: Apache-2.0

/// A pattern of module names in an adapter's `rank_pattern` or `alpha_pattern`: the part of Python's regular
/// expressions that such patterns use, matched in bounded time.
///
/// Understands literals, `.`, classes such as `[qv]` and `\d`, groups, `|`, `*`, `+`, `?`, `^` and `$`
/// (https://docs.python.org/3/library/re.html#regular-expression-syntax). As in peft, a pattern stands for a whole name or
/// for the end of one that follows a dot: `re.match(rf"(.*\.)?({pattern})$", name)`.
struct ModulePattern: Sendable {
    fileprivate indirect enum Node: Sendable {
        case byte(ByteSet)
        case sequence([Node])
        case choice([Node])
        case some(Node, least: Int, most: Int)
        case start
        case end
    }

    /// A set of bytes.
    fileprivate struct ByteSet: Sendable {
        var members = Set<UInt8>()
        var isInverted = false

        func contains(_ byte: UInt8) -> Bool { self.members.contains(byte) != self.isInverted }
    }

    /// The longest pattern.
    static let maxBytes = 1_024

    private let root: Node

    /// Reads a pattern; nil for one that is too long, malformed, or uses another construct.
    ///
    /// - Parameter text: The pattern as the file has it.
    init?(_ text: String) {
        guard text.utf8.count <= Self.maxBytes else { return nil }
        var parser = Parser(bytes: Array(text.utf8))
        guard let root = parser.choice(depth: 0), parser.isAtEnd else { return nil }
        self.root = root
    }

    /// Whether the pattern stands for a module.
    ///
    /// - Parameter name: The module's name.
    /// - Returns: True if it matches the name, or the name's end after a dot.
    func matches(_ name: String) -> Bool {
        let bytes = Array(name.utf8)
        var starts: Set<Int> = [0]
        for index in bytes.indices where bytes[index] == UInt8(ascii: ".") { starts.insert(index + 1) }
        return Self.ends(self.root, starts, bytes).contains(bytes.count)
    }

    /// Where a node's matches end, given where they may begin: sets in place of backtracking bound the work.
    private static func ends(_ node: Node, _ starts: Set<Int>, _ bytes: [UInt8]) -> Set<Int> {
        guard !starts.isEmpty else { return [] }
        switch node {
        case .byte(let set):
            return Set(starts.lazy.filter { $0 < bytes.count && set.contains(bytes[$0]) }.map { $0 + 1 })
        case .sequence(let nodes):
            return nodes.reduce(starts) { self.ends($1, $0, bytes) }
        case .choice(let nodes):
            return nodes.reduce(into: []) { $0.formUnion(self.ends($1, starts, bytes)) }
        case .some(let node, let least, let most):
            var reached: Set<Int> = least == 0 ? starts : []
            var frontier = starts
            var rounds = 0
            while !frontier.isEmpty, rounds < most {
                let next = self.ends(node, frontier, bytes)
                frontier = next.subtracting(reached)
                reached.formUnion(next)
                rounds += 1
            }
            return reached
        case .start: return starts.contains(0) ? [0] : []
        case .end: return starts.contains(bytes.count) ? [bytes.count] : []
        }
    }
}

/// Reads a pattern; every function returns nil for what it does not know.
private struct Parser {
    typealias Node = ModulePattern.Node
    typealias ByteSet = ModulePattern.ByteSet

    private static let maxDepth = 16
    private static let digits = Set(UInt8(ascii: "0")...UInt8(ascii: "9"))
    private static let words = digits.union(UInt8(ascii: "a")...UInt8(ascii: "z"))
        .union(UInt8(ascii: "A")...UInt8(ascii: "Z")).union([UInt8(ascii: "_")])

    let bytes: [UInt8]
    var position = 0

    init(bytes: [UInt8]) { self.bytes = bytes }

    var isAtEnd: Bool { self.position == self.bytes.count }

    private func peek(_ character: Unicode.Scalar) -> Bool {
        !self.isAtEnd && self.bytes[self.position] == UInt8(ascii: character)
    }

    private mutating func take(_ character: Unicode.Scalar) -> Bool {
        guard self.peek(character) else { return false }
        self.position += 1
        return true
    }

    mutating func choice(depth: Int) -> Node? {
        guard depth < Self.maxDepth else { return nil }
        var branches: [Node] = []
        repeat {
            var sequence: [Node] = []
            while !self.isAtEnd, !self.peek("|"), !self.peek(")") {
                guard let atom = self.atom(depth: depth), let node = self.repeated(atom) else { return nil }
                sequence.append(node)
            }
            branches.append(.sequence(sequence))
        } while self.take("|")
        return branches.count == 1 ? branches[0] : .choice(branches)
    }

    private mutating func repeated(_ atom: Node) -> Node? {
        let node: Node
        if self.take("*") {
            node = .some(atom, least: 0, most: .max)
        } else if self.take("+") {
            node = .some(atom, least: 1, most: .max)
        } else if self.take("?") {
            node = .some(atom, least: 0, most: 1)
        } else {
            return self.peek("{") ? nil : atom
        }
        // A lazy quantifier finds the same names. A second quantifier is an error, or means something else.
        _ = self.take("?")
        return self.peek("*") || self.peek("+") || self.peek("?") || self.peek("{") ? nil : node
    }

    private mutating func atom(depth: Int) -> Node? {
        if self.take("(") {
            if self.take("?"), !self.take(":") { return nil }
            guard let inner = self.choice(depth: depth + 1), self.take(")") else { return nil }
            return inner
        }
        if self.take("^") { return .start }
        if self.take("$") { return .end }
        if self.take(".") { return .byte(ByteSet(members: [UInt8(ascii: "\n")], isInverted: true)) }
        if self.take("[") { return self.bracketed() }
        if self.take("\\") { return self.escaped().map { .byte($0) } }
        guard !self.isAtEnd, !"*+?{".utf8.contains(self.bytes[self.position]) else { return nil }
        defer { self.position += 1 }
        return .byte(ByteSet(members: [self.bytes[self.position]]))
    }

    /// What follows a backslash: a class, or a character that is not a letter or a digit and stands for itself.
    private mutating func escaped() -> ByteSet? {
        guard !self.isAtEnd else { return nil }
        let byte = self.bytes[self.position]
        self.position += 1
        switch byte {
        case UInt8(ascii: "d"): return ByteSet(members: Self.digits)
        case UInt8(ascii: "w"): return ByteSet(members: Self.words)
        default: return Self.words.contains(byte) && byte != UInt8(ascii: "_") ? nil : ByteSet(members: [byte])
        }
    }

    private mutating func bracketed() -> Node? {
        var set = ByteSet()
        set.isInverted = self.take("^")
        while !self.peek("]") {
            guard !self.isAtEnd, !self.peek("[") else { return nil }
            if self.take("\\") {
                guard let members = self.escaped()?.members else { return nil }
                set.members.formUnion(members)
                continue
            }
            let first = self.bytes[self.position]
            self.position += 1
            guard self.peek("-"), self.position + 1 < self.bytes.count,
                self.bytes[self.position + 1] != UInt8(ascii: "]")
            else {
                set.members.insert(first)
                continue
            }
            let last = self.bytes[self.position + 1]
            guard first <= last, last != UInt8(ascii: "\\") else { return nil }
            set.members.formUnion(first...last)
            self.position += 2
        }
        guard !set.members.isEmpty, self.take("]") else { return nil }
        return .byte(set)
    }
}
