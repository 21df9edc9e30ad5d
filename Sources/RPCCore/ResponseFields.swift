// SPDX-License-Identifier: Apache-2.0

/// A header block of a response, parsed at most once as each kind of block.
///
/// Servers send the same few blocks with every call. A runner that recognises a block keeps its instance and hands it
/// to the next call's machine, which finds it already parsed.
public final class ResponseFields {
    /// The block, names in lower case.
    public let fields: [HeaderField]

    /// The block as the first of a response, with and without the end of the stream.
    private var first: (open: ResponseHead.Parsed?, ending: ResponseHead.Parsed?) = (nil, nil)

    /// The block as trailers.
    private var last: Trailers?

    /// Creates a block that has not been parsed.
    ///
    /// - Parameter fields: The block, names in lower case.
    public init(_ fields: [HeaderField]) {
        self.fields = fields
    }

    /// The block as the first of a response.
    ///
    /// - Parameter endStream: Whether it ends the stream.
    /// - Returns: What ``ResponseHead/parse(_:endStream:)`` makes of it.
    func head(endStream: Bool) -> ResponseHead.Parsed {
        if let known = endStream ? self.first.ending : self.first.open { return known }
        let parsed = ResponseHead.parse(self.fields, endStream: endStream)
        if endStream { self.first.ending = parsed } else { self.first.open = parsed }
        return parsed
    }

    /// The block as trailers: what ``Trailers/parse(_:httpStatus:)`` makes of it.
    var trailers: Trailers {
        if let known = self.last { return known }
        let parsed = Trailers.parse(self.fields)
        self.last = parsed
        return parsed
    }
}
