// SPDX-License-Identifier: Apache-2.0

internal import ServiceKit

/// Rows whose outputs are wanted: any replica that is up to date may answer.
extension ShardLink {
    /// Sends rows that no replica has been asked for, or that take too long.
    func pumpReads() {
        let sends = self.state.withLock { state -> [(Int, Int, ShardRows)] in
            guard let current = state.book?.current, !current.isEmpty else { return [] }
            let patience = max(.milliseconds(250), state.callTime * 4)
            var load = Dictionary(uniqueKeysWithValues: current.map { ($0, 0) })
            for read in state.reads.values where read.answer == nil {
                for replica in read.asked { load[replica]? += 1 }
            }
            var sends: [(Int, Int, ShardRows)] = []
            for (id, read) in state.reads.sorted(by: { $0.key < $1.key }) where read.answer == nil {
                let isLate = read.askedAt.map { .now - $0 > patience } ?? true
                guard read.asked.isEmpty || isLate else { continue }
                guard
                    let replica = current.filter({ !read.asked.contains($0) })
                        .min(by: { (load[$0] ?? 0, $0) < (load[$1] ?? 0, $1) })
                else { continue }
                load[replica]? += 1
                state.reads[id]?.asked.append(replica)
                state.reads[id]?.askedAt = .now
                sends.append((id, replica, read.rows))
            }
            return sends
        }
        for (id, replica, rows) in sends {
            self.send(rows, to: replica, isBackward: false, isReplay: false) { result in
                switch result {
                case .failure(let error):
                    self.state.withLock { $0.reads[id]?.asked.removeAll { $0 == replica } }
                    self.failed(replica, error)
                case .success(let matrix):
                    self.state.notify { state in
                        guard state.reads[id] != nil, state.reads[id]?.answer == nil else { return }
                        state.reads[id]?.answer = matrix
                        state.used.insert(replica)
                    }
                }
            }
        }
    }
}
