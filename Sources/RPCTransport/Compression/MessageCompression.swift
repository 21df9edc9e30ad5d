// SPDX-License-Identifier: Apache-2.0

internal import NIOCore

/// Whether messages are compressed on their way out.
///
/// Compressed messages of the peer are read either way. Tensors hardly get smaller; text does.
public enum MessageCompression: Sendable, Hashable {
    /// Messages are sent as they are.
    case none
    /// Messages of at least `minimumBytes` are sent as gzip where the peer reads it and where that makes them smaller.
    ///
    /// Before the first response a client does not know what the server reads, so it assumes gzip.
    case gzip(minimumBytes: Int)

    /// The encoding's name in `grpc-encoding`.
    var encoding: String? {
        switch self {
        case .none: nil
        case .gzip: Gzip.name
        }
    }

    /// A message as the pieces to write, compressed or not.
    func framed(_ payload: Payload) -> [ByteBuffer] {
        guard case .gzip(let minimumBytes) = self, payload.mayBeCompressed, payload.byteCount >= minimumBytes,
            let compressed = Gzip.compressed(payload)
        else { return payload.framed() }
        return Payload(compressed).framed(isCompressed: true)
    }
}
