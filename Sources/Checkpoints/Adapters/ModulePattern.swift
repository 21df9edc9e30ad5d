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

    /// A step of the machine that the pattern is made into.
    private enum Step: Sendable {
        case byte(ByteSet)
        case split(Int, Int)
        case jump(Int)
        case start
        case end
        case match
    }

    private let steps: [Step]

    /// Reads a pattern; nil for one that is too long, malformed, or uses another construct.
    ///
    /// - Parameter text: The pattern as the file has it.
    init?(_ text: String) {
        guard text.utf8.count <= Self.maxBytes else { return nil }
        var parser = Parser(bytes: Array(text.utf8))
        guard let root = parser.choice(depth: 0), parser.isAtEnd else { return nil }
        var steps: [Step] = []
        Self.append(root, to: &steps)
        self.steps = steps + [.match]
    }

    /// Whether the pattern stands for a module.
    ///
    /// All ways through the pattern are followed side by side, each step at most once a byte, so that work is at most the
    /// product of both lengths, however repetitions are nested
    /// (https://swtch.com/~rsc/regexp/regexp1.html, "Implementation: Simulating the NFA").
    ///
    /// - Parameter name: The module's name.
    /// - Returns: True if it matches the name, or the name's end after a dot.
    func matches(_ name: String) -> Bool {
        let bytes = Array(name.utf8)
        var front = Front(stepCount: self.steps.count)
        var isMatch = false
        for position in 0...bytes.count {
            if position == 0 || bytes[position - 1] == UInt8(ascii: ".") { front.open.append(0) }
            isMatch = self.follow(&front, position, bytes.count)
            guard position < bytes.count else { break }
            for index in front.waiting {
                if case .byte(let set) = self.steps[index], set.contains(bytes[position]) {
                    front.open.append(index + 1)
                }
            }
            front.waiting.removeAll(keepingCapacity: true)
        }
        return isMatch
    }

    /// Where the ways through a pattern have come to.
    private struct Front {
        /// Steps to go on from at the present byte.
        var open: [Int] = []
        /// Steps that wait for a byte.
        var waiting: [Int] = []
        /// The last position at which each step was reached.
        var reached: [Int]

        init(stepCount: Int) { self.reached = Array(repeating: -1, count: stepCount) }
    }

    /// Follows the steps that take no byte; true where one of the ways is at its end.
    private func follow(_ front: inout Front, _ position: Int, _ count: Int) -> Bool {
        var isMatch = false
        while let index = front.open.popLast() {
            guard front.reached[index] != position else { continue }
            front.reached[index] = position
            switch self.steps[index] {
            case .byte: front.waiting.append(index)
            case .split(let first, let second): front.open += [first, second]
            case .jump(let target): front.open.append(target)
            case .start: if position == 0 { front.open.append(index + 1) }
            case .end: if position == count { front.open.append(index + 1) }
            case .match: isMatch = true
            }
        }
        return isMatch
    }

    private static func append(_ node: Node, to steps: inout [Step]) {
        switch node {
        case .byte(let set): steps.append(.byte(set))
        case .start: steps.append(.start)
        case .end: steps.append(.end)
        case .sequence(let nodes):
            for node in nodes { self.append(node, to: &steps) }
        case .choice(let nodes):
            var jumps: [Int] = []
            for (index, node) in nodes.enumerated() {
                let split = steps.count
                let isLast = index == nodes.count - 1
                if !isLast { steps.append(.jump(0)) }
                self.append(node, to: &steps)
                guard !isLast else { break }
                jumps.append(steps.count)
                steps.append(.jump(0))
                steps[split] = .split(split + 1, steps.count)
            }
            for jump in jumps { steps[jump] = .jump(steps.count) }
        case .some(let node, let least, let most):
            let begin = steps.count
            if least == 0 { steps.append(.jump(0)) }
            self.append(node, to: &steps)
            if most > 1 { steps.append(least == 0 ? .jump(begin) : .split(begin, steps.count + 1)) }
            if least == 0 { steps[begin] = .split(begin + 1, steps.count) }
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
