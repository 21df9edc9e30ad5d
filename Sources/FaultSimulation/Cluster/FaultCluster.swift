// SPDX-License-Identifier: Apache-2.0

internal import BatchScheduling
internal import ExpertPooling
internal import HTTP2Session
internal import NIOCore
internal import PoolSimulation
internal import RPCCore
internal import SwitchyardTypes

/// A whole cluster in virtual time: the machines that decide in production, on made-up wires and clocks.
///
/// Everything happens in one loop of events, on one thread. Real are the scheduler, the pools and layer calls of the
/// gateways, the admission of the hosts, the call states and the HTTP/2 codecs of both ends of every connection. Made up
/// are bytes' ways between them, names, time, experts and clients. The same scenario gives the same run.
final class FaultCluster {
    /// What happens next.
    enum Event {
        /// Bytes arrive at the end of a link.
        case segment(WireLink, LinkSide)
        /// An end learns that its connection is gone.
        case lost(WireLink, LinkSide, String)
        /// A process does something.
        case work(process: Int, generation: Int, Work)
        case fault(Int)
        case faultOver(Int)
    }

    /// What a process does.
    enum Work {
        case connect(SimulatedChannel)
        case connected(SimulatedChannel, attempt: Int)
        case connectFailed(SimulatedChannel, attempt: Int)
        case callDeadline(OutgoingCall)
        case retry(OutgoingCall, SimulatedChannel)
        case serverDeadline(IncomingCall)
        case drainOver(WireLink)
        case send(request: Int)
        case cancel(request: Int)
        case engine
        case recomputed(lane: Int, Int, call: Int)
        case layerTimer(lane: Int, Int)
        case poolTimer
        case names(pool: Int)
        case hostWake
        case computed(turn: Int)
        case leave
        case abandon
    }

    let scenario: FaultScenario
    private let origin: ContinuousClock.Instant
    var queue = EventQueue<Event>()
    var now: Int64 = 0
    var processes: [SimulatedProcess] = []
    var clientChannels: [SimulatedChannel?]
    var gateways: [SimulatedGateway] = []
    var hosts: [SimulatedHost] = []
    var requests: [ClientRequest]
    /// Where each request is in ``requests``, by its number.
    let requestIndices: [Int: Int]
    /// Which host listens at a port; nil where none does.
    var addresses: [Int: Int] = [:]
    /// What the name of each pool resolves to.
    var names: [[Int]]
    /// Cut directions: until when, by from × processes + to.
    var cuts: [Int: Int64] = [:]
    var reorderUntil: Int64 = 0
    var reorderTime: Int64 = 0
    var links: [Int: WireLink] = [:]
    var openCalls: [Int: OutgoingCall] = [:]
    /// Outputs that hosts falsified on purpose.
    var falsified: Set<UInt64> = []
    var chance: SimulatedChance
    var nextLink = 0
    var nextChannel = 0
    var nextCall = 0
    var nextPort = 1000
    var report = FaultReport()
    /// Processes that the current event touched, whose machines are checked after it.
    var touched: Set<Int> = []
    var touchedLinks: [WireLink] = []

    /// What happened, for people; nil unless asked for.
    private(set) var trace: [String]?

    init(_ scenario: FaultScenario, isTraced: Bool = false) {
        self.trace = isTraced ? [] : nil
        self.scenario = scenario
        self.origin = .now
        self.chance = SimulatedChance(seed: scenario.seed &* 7919 &+ 3)
        self.requests = scenario.requests.map { ClientRequest(request: $0) }
        self.requestIndices = Dictionary(
            uniqueKeysWithValues: scenario.requests.enumerated().map { ($0.element.id, $0.offset) }
        )
        self.clientChannels = Array(repeating: nil, count: scenario.clients)
        self.names = Array(repeating: [], count: scenario.pools)
        for index in 0..<scenario.clients { self.processes.append(SimulatedProcess(.client(index))) }
        for index in 0..<scenario.gateways { self.processes.append(SimulatedProcess(.gateway(index))) }
        for index in 0..<scenario.hosts { self.processes.append(SimulatedProcess(.host(index))) }
        self.makeHosts()
        for gateway in 0..<scenario.gateways { self.gateways.append(self.makeGateway(gateway)) }
    }

    // MARK: - Processes and time

    func process(of target: SimulatedFault.Target) -> Int {
        switch target {
        case .client(let index): index
        case .gateway(let index): self.scenario.clients + index
        case .host(let index): self.scenario.clients + self.scenario.gateways + index
        }
    }

    func process(ofGateway index: Int) -> Int { self.scenario.clients + index }

    func process(ofHost index: Int) -> Int { self.scenario.clients + self.scenario.gateways + index }

    /// The clock of a process, nanoseconds.
    func clock(_ process: Int) -> Int64 { self.now + self.processes[process].clockOffset }

    /// The clock of a process as its machines see it.
    func time(_ process: Int) -> ContinuousClock.Instant {
        self.origin.advanced(by: .nanoseconds(self.clock(process)))
    }

    /// An instant of a process's clock as nanoseconds.
    func nanoseconds(_ instant: ContinuousClock.Instant) -> Int64 {
        let parts = self.origin.duration(to: instant).components
        return parts.seconds * 1_000_000_000 + (parts.attoseconds + 999_999_999) / 1_000_000_000
    }

    /// Plans something that a process does after a time.
    func after(_ delay: Int64, _ process: Int, _ work: Work) {
        let generation = self.processes[process].generation
        self.queue.add(.work(process: process, generation: generation, work), at: self.now + max(0, delay))
    }

    /// Plans something that a process does when its clock shows a time.
    func at(_ clock: Int64, _ process: Int, _ work: Work) { self.after(clock - self.clock(process), process, work) }

    func violated(_ text: String) {
        if self.report.violations.count < 20 {
            self.report.violations.append("at \(milliseconds(self.now)): \(text)")
        }
    }

    /// Writes down what happens, where somebody asked.
    func log(_ text: @autoclosure () -> String) {
        guard self.trace != nil else { return }
        self.trace?.append("\(milliseconds(self.now)): \(text())")
    }

    func note(_ state: RareState) {
        self.log("  (\(state.rawValue))")
        self.report.rareStates[state, default: 0] += 1
    }

    // MARK: - The loop

    /// Runs everything until nothing is left to happen that matters.
    func run() -> FaultReport {
        for index in self.scenario.faults.indices {
            self.queue.add(.fault(index), at: self.scenario.faults[index].time)
        }
        for index in self.requests.indices {
            let process = self.requests[index].request.client
            self.after(self.requests[index].request.time, process, .send(request: index))
        }
        for client in 0..<self.scenario.clients { self.openClientChannel(client) }
        for gateway in self.gateways.indices { self.startGateway(gateway) }
        let end = self.endOfTime
        var eventsNow = 0
        while let (time, event) = self.queue.next(), time <= end, self.report.violations.isEmpty {
            eventsNow = time == self.now ? eventsNow + 1 : 0
            if eventsNow > 50_000 { self.violated("time stands still: 50,000 events happened at once") }
            self.now = time
            self.report.events += 1
            self.handle(event)
            self.checkTouched()
        }
        self.now = max(self.now, end)
        if self.report.violations.isEmpty { self.checkEnd() }
        self.report.virtualNanoseconds = end
        for request in self.requests { self.report.outcomes.append(FaultReport.Outcome(request)) }
        self.releaseAll()
        return self.report
    }

    /// Two seconds behind the last request; each of those has at most that long.
    private var endOfTime: Int64 {
        max(self.scenario.requests.map(\.time).max() ?? 0, self.scenario.healedAt + FaultScenario.settleTime)
            + 2_500_000_000
    }

    private func handle(_ event: Event) {
        switch event {
        case .segment(let link, let side):
            guard self.isReady(link.process(side), event) else { return }
            self.segmentArrived(link, side)
        case .lost(let link, let side, let reason):
            guard self.isReady(link.process(side), event) else { return }
            self.close(link, side, reason: reason)
        case .work(let process, let generation, let work):
            guard self.processes[process].generation == generation, self.processes[process].isAlive,
                self.isReady(process, event)
            else { return }
            self.touched.insert(process)
            self.perform(work, by: process)
        case .fault(let index):
            self.begin(self.scenario.faults[index], index)
        case .faultOver(let index):
            self.end(self.scenario.faults[index])
        }
    }

    /// Whether a process can do something now; if it stands still, the event waits for it.
    private func isReady(_ process: Int, _ event: Event) -> Bool {
        guard self.processes[process].hungUntil > self.now else { return true }
        self.queue.add(event, at: self.processes[process].hungUntil)
        return false
    }

    private func perform(_ work: Work, by process: Int) {
        switch work {
        case .connect(let channel): self.connect(channel)
        case .connected(let channel, let attempt): self.connected(channel, attempt)
        case .connectFailed(let channel, let attempt): self.connectFailed(channel, attempt)
        case .callDeadline(let call): self.deadlineExpired(call)
        case .retry(let call, let channel): self.start(call, on: channel)
        case .serverDeadline(let call): self.serverDeadlineExpired(call)
        case .drainOver(let link): self.finishDrain(link)
        case .send(let request): self.sendRequest(request)
        case .cancel(let request): self.cancelRequest(request)
        case .engine: self.engine(self.gateway(process))
        case .layerTimer(let lane, let serial): self.layerTimer(self.gateway(process), lane, serial)
        case .recomputed(let lane, let serial, let call):
            self.recomputed(self.gateway(process), lane, serial, call)
        case .poolTimer: self.poolTimer(self.gateway(process))
        case .names(let pool): self.namesFound(self.gateway(process), pool)
        case .hostWake: self.hostWake(self.host(process))
        case .computed(let turn): self.computed(self.host(process), turn)
        case .leave: self.leave(process)
        case .abandon: self.stop(process)
        }
        self.repeatIfDuplicated(work, by: process)
    }

    /// A runner may be late, and then wake its machine once more than it asked for.
    private func repeatIfDuplicated(_ work: Work, by process: Int) {
        guard self.processes[process].duplicateUntil > self.now else { return }
        switch work {
        case .callDeadline, .serverDeadline, .layerTimer, .poolTimer, .names, .hostWake, .computed:
            guard self.chance.index(below: 2) == 0 else { return }
            self.note(.noticeTwice)
            self.after(Int64(self.chance.index(below: 3_000_000)), process, work)
        default: break
        }
    }

    func gateway(_ process: Int) -> Int { process - self.scenario.clients }

    func host(_ process: Int) -> Int { process - self.scenario.clients - self.scenario.gateways }

    /// Breaks the cycles of links, channels and calls.
    private func releaseAll() {
        for link in self.links.values {
            link.outgoing = [:]
            link.incoming = [:]
            link.channel.link = nil
        }
        self.links = [:]
        self.openCalls = [:]
    }
}
