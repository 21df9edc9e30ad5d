// SPDX-License-Identifier: Apache-2.0

/// The status of a call whose response has an HTTP status and no `grpc-status`, such as a proxy's own response.
///
/// Source: https://github.com/grpc/grpc/blob/v1.51.1/doc/http-grpc-status-mapping.md, and 431 as INTERNAL, which a peer
/// answers when the request exceeds its header limit.
public enum HTTPStatusMapping {
    /// Maps an HTTP status.
    ///
    /// - Parameter httpStatus: The number in `:status`.
    /// - Returns: The code; `.unknown` for everything that the table does not name, 200 included.
    public static func code(forHTTPStatus httpStatus: Int) -> Status.Code {
        switch httpStatus {
        case 400, 431: .internal
        case 401: .unauthenticated
        case 403: .permissionDenied
        case 404: .unimplemented
        case 429, 502, 503, 504: .unavailable
        default: .unknown
        }
    }
}
