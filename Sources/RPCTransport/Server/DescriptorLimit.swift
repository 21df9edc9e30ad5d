// SPDX-License-Identifier: Apache-2.0

#if canImport(Glibc)
internal import Glibc
#elseif canImport(Musl)
internal import Musl
#elseif canImport(Darwin)
internal import Darwin
#endif

/// The process's limit of open file descriptors, of which every connection takes one.
public enum DescriptorLimit {
    /// Beyond this many a higher limit has no use, and programs that walk through all descriptors become slow.
    static let ceiling = 1 << 20
    /// Descriptors that a server's connections leave for everything else: probes, connections to hosts, files.
    static let reserve = 128

    /// Raises the soft limit to the hard limit, which needs no privilege.
    ///
    /// - Returns: The limit before and now; nil if the system does not say.
    public static func raise() -> (before: Int, now: Int)? {
        guard var limits = Self.limits else { return nil }
        let before = Self.count(limits.rlim_cur)
        let wanted = min(Self.count(limits.rlim_max), Self.ceiling)
        guard wanted > before else { return (before, before) }
        limits.rlim_cur = rlim_t(wanted)
        return (before, Self.set(limits) ? wanted : before)
    }

    /// The soft limit; nil if the system does not say.
    public static var current: Int? { Self.limits.map { Self.count($0.rlim_cur) } }

    /// How many connections a server may hold so that descriptors are left for everything else.
    ///
    /// - Parameters:
    ///   - maximum: The server's own limit.
    ///   - descriptors: The process's limit of descriptors; nil if unknown.
    /// - Returns: The smaller of the two, less a reserve; half of a very small limit.
    static func connections(maximum: Int, descriptors: Int?) -> Int {
        guard let descriptors else { return maximum }
        return min(maximum, max(1, max(descriptors - Self.reserve, descriptors / 2)))
    }

    #if canImport(Glibc)
    private static let openFiles = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
    #else
    private static let openFiles = RLIMIT_NOFILE
    #endif

    private static func count(_ limit: rlim_t) -> Int { Int(clamping: limit) }

    private static var limits: rlimit? {
        var limits = rlimit()
        return getrlimit(Self.openFiles, &limits) == 0 ? limits : nil
    }

    private static func set(_ limits: rlimit) -> Bool {
        var limits = limits
        return setrlimit(Self.openFiles, &limits) == 0
    }
}
