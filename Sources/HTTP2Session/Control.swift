// SPDX-License-Identifier: Apache-2.0

/// A frame that goes out before all streams' frames.
enum Control: Sendable {
    case settingsAcknowledgement
    case ping(UInt64, isAcknowledgement: Bool)
    /// Ends a stream.
    case reset(Int32, HTTP2ErrorCode)
    /// Refuses a stream that was never opened here.
    case refusal(Int32)
    case windowUpdate(Int32, UInt32)
    case goAway(GoAway)

    /// Whether the peer caused it without a call, and so could pile such frames up.
    var isAcknowledgement: Bool {
        switch self {
        case .settingsAcknowledgement, .ping(_, isAcknowledgement: true): true
        default: false
        }
    }
}

/// A `GOAWAY` that waits to be sent.
struct GoAway: Sendable {
    /// What follows it.
    enum Kind: Sendable {
        /// Streams are still taken: the peer is only told to expect the end.
        case notice
        /// Streams up to the last one go on.
        case last
        /// Nothing is sent after it.
        case terminating
    }

    var lastStreamID: Int32
    var code: HTTP2ErrorCode
    var debug: [UInt8]
    var kind: Kind
}

/// A queue whose memory is used again.
struct Line<Element> {
    private var elements: [Element] = []
    private var first = 0

    /// Whether nothing waits.
    var isEmpty: Bool { self.first == self.elements.count }
    /// How many elements wait.
    var count: Int { self.elements.count - self.first }
    /// The first element.
    var front: Element? { self.isEmpty ? nil : self.elements[self.first] }

    mutating func append(_ element: Element) { self.elements.append(element) }

    /// Removes the elements that wait for nothing any more.
    mutating func removeAll(where isOver: (Element) -> Bool) {
        self.elements.removeFirst(self.first)
        self.first = 0
        self.elements.removeAll(where: isOver)
    }

    mutating func popFirst() -> Element? {
        guard !self.isEmpty else { return nil }
        let element = self.elements[self.first]
        self.first += 1
        if self.first == self.elements.count {
            self.elements.removeAll(keepingCapacity: true)
            self.first = 0
        } else if self.first >= 64, 2 * self.first >= self.elements.count {
            self.elements.removeFirst(self.first)
            self.first = 0
        }
        return element
    }
}
