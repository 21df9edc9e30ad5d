// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
public import SwitchyardTypes

#if canImport(Glibc)
internal import Glibc
#elseif canImport(Musl)
internal import Musl
#elseif canImport(Darwin)
internal import Darwin
#endif

/// A server cannot listen on its address.
public struct ListenError: Error, Sendable, Hashable, CustomStringConvertible {
    /// What is wrong with the address.
    public let problem: ListenProblem
    /// The address, what is wrong with it, and what to do.
    public let description: String

    /// Puts a failed attempt to listen into words.
    ///
    /// - Parameters:
    ///   - error: What the attempt threw.
    ///   - host: The host of the address.
    ///   - port: The port of the address.
    ///   - setting: The key of the setting that holds the address.
    package init(_ error: any Error, host: String, port: Int, setting: String = "listen") {
        self.problem = ListenProblem(error)
        self.description = self.problem.message(at: AddressText.of(host: host, port: port), setting: setting)
    }
}

extension ListenProblem {
    fileprivate init(_ error: any Error) {
        switch error {
        case let problem as ListenProblem: self = problem
        case let problem as UnixAddress.Problem: self = .other(problem.description)
        case let error as IOError: self.init(errno: error.errnoCode, "\(error)")
        case is SocketAddressError.UnknownHost, is SocketAddressError: self = .unknownName
        default: self = .other("\(error)")
        }
    }

    init(errno code: CInt, _ words: String) {
        switch code {
        case ENOENT, ENOTDIR: self = .noFolder
        case EADDRINUSE: self = .taken
        case EACCES, EPERM: self = .notPermitted
        case EADDRNOTAVAIL, EAFNOSUPPORT: self = .notHere
        case EMFILE, ENFILE: self = .noDescriptor
        default: self = .other(words)
        }
    }
}
