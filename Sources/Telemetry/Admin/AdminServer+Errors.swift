// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import SwitchyardTypes

#if canImport(Glibc)
internal import Glibc
#elseif canImport(Musl)
internal import Musl
#elseif canImport(Darwin)
internal import Darwin
#endif

extension AdminServerConfiguration {
    /// Why the admin port cannot listen, and what to do.
    ///
    /// - Parameter error: What the attempt threw.
    /// - Returns: One sentence.
    func words(for error: any Error) -> String {
        let problem: ListenProblem =
            switch error {
            case let error as IOError:
                switch error.errnoCode {
                case EADDRINUSE: .taken
                case EACCES, EPERM: .notPermitted
                case EADDRNOTAVAIL, EAFNOSUPPORT: .notHere
                case EMFILE, ENFILE: .noDescriptor
                default: .other("\(error)")
                }
            case is SocketAddressError.UnknownHost, is SocketAddressError: .unknownName
            default: .other("\(error)")
            }
        let address = self.host.contains(":") ? "[\(self.host)]:\(self.port)" : "\(self.host):\(self.port)"
        return
            "the admin port: \(problem.message(at: address, setting: "admin-listen")); --admin-listen off does without it"
    }
}
