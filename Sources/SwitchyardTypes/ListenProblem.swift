// SPDX-License-Identifier: Apache-2.0

/// Why a service cannot listen on an address, in words that say what to do.
public enum ListenProblem: Error, Sendable, Hashable {
    /// Another process listens there.
    case taken
    /// This user may not open the port.
    case notPermitted
    /// The address belongs to another machine, or to none.
    case notHere
    /// The host name stands for no address.
    case unknownName
    /// This process or machine has no descriptor left.
    case noDescriptor
    /// The folder of a Unix socket does not exist.
    case noFolder
    /// A file lies where a Unix socket was to be made.
    case notASocket
    /// Something else, in the system's words.
    case other(String)

    /// The whole message.
    ///
    /// - Parameters:
    ///   - address: The address as people write it.
    ///   - setting: The key of the setting that holds the address, such as `listen`.
    /// - Returns: One sentence: the address, what is wrong with it, and what to do.
    public func message(at address: String, setting: String) -> String {
        let flag = "--\(setting)"
        let isUnix = UnixAddress.isMeant(by: address)
        let words =
            switch self {
            case .taken where isUnix:
                "another process listens there (`ss -lxp` shows which); stop it, or choose another path with \(flag)"
            case .notPermitted where isUnix:
                "this user may not make a socket there (permission denied); with \(flag) choose a folder that it may write "
                    + "to, or change the folder's owner or mode"
            case .noFolder:
                "the folder does not exist; make it, or choose another path with \(flag)"
            case .notASocket:
                "the path names a file that is no socket, which is not touched; remove it, or choose another path with \(flag)"
            case .taken:
                "another process listens there (`ss -ltnp` shows which); stop it, or choose another port with \(flag)"
            case .notPermitted:
                "this user may not open the port (permission denied); choose one of 1024 or above with \(flag), or give "
                    + "the process the capability CAP_NET_BIND_SERVICE"
            case .notHere:
                "no network interface of this machine has that address; with \(flag) choose one that it has (`ip address` "
                    + "lists them), or * for all"
            case .unknownName:
                "the host name stands for no address here; correct it, or give an IP address, with \(flag)"
            case .noDescriptor:
                "no file descriptor is left; raise the limit (`ulimit -n`, LimitNOFILE)"
            case .other(let reason):
                "\(reason); choose another address with \(flag)"
            }
        return "cannot listen on \(address): \(words)"
    }
}
