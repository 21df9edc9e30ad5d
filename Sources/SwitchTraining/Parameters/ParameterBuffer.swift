// SPDX-License-Identifier: Apache-2.0

public import Checkpoints
internal import SwitchyardTypes
internal import TensorKernels

/// One float32 number for each of a layout's elements: weights, gradients, moments.
///
/// The memory is aligned to 64 bytes, and begins as zeros. The gaps between tensors stay zeros.
public final class ParameterBuffer: @unchecked Sendable {
    // Safety: a step is computed by one caller at a time; the threads that work for it write disjoint tensors or rows.

    /// Where the tensors lie.
    public let layout: ParameterLayout

    private let memory: LargeMemory
    private let pointer: UnsafeMutablePointer<Float>

    /// Makes a buffer of zeros.
    ///
    /// - Parameter layout: Where the tensors lie.
    public init(layout: ParameterLayout) {
        self.layout = layout
        let count = max(layout.count, ParameterLayout.alignment)
        self.memory = LargeMemory(byteCount: count * MemoryLayout<Float>.stride)
        self.pointer = self.memory.start.bindMemory(to: Float.self, capacity: count)
    }

    /// All elements, gaps included; valid as long as the buffer lives.
    public var all: UnsafeMutableBufferPointer<Float> {
        UnsafeMutableBufferPointer(start: self.pointer, count: self.layout.count)
    }

    /// One tensor's elements, row-major; valid as long as the buffer lives.
    ///
    /// - Parameter index: The tensor's entry in the layout.
    public subscript(index: Int) -> UnsafeMutableBufferPointer<Float> {
        let range = self.layout.entries[index].range
        return UnsafeMutableBufferPointer(start: self.pointer + range.lowerBound, count: range.count)
    }

    /// The first element of a tensor.
    func start(_ index: Int) -> UnsafeMutablePointer<Float> {
        self.pointer + self.layout.entries[index].range.lowerBound
    }

    /// Sets all elements to 0.
    public func clear() {
        self.pointer.update(repeating: 0, count: self.layout.count)
    }

    /// Copies another buffer's elements.
    ///
    /// - Parameter other: A buffer of the same layout.
    public func copy(from other: ParameterBuffer) {
        precondition(other.layout.count == self.layout.count, "buffers of different layouts")
        self.pointer.update(from: other.pointer, count: self.layout.count)
    }

    /// Reads a checkpoint's tensors, widened or rounded to float32.
    ///
    /// - Parameters:
    ///   - checkpoint: A whole checkpoint.
    ///   - layout: The layout of its configuration.
    ///   - progress: Called after each tensor with how many are read.
    /// - Returns: The weights.
    /// - Throws: `CheckpointError` for a tensor that is missing, malformed or not finite, with its file and name.
    public static func load(
        _ checkpoint: Checkpoint,
        layout: ParameterLayout,
        progress: ((Int) -> Void)? = nil
    ) throws(CheckpointError) -> ParameterBuffer {
        let buffer = ParameterBuffer(layout: layout)
        for (index, entry) in layout.entries.enumerated() {
            try buffer.read(entry.role, of: checkpoint, into: index)
            progress?(index + 1)
        }
        return buffer
    }

    /// Reads one tensor of a checkpoint, widened or rounded to float32.
    ///
    /// - Parameters:
    ///   - role: What the tensor is for in the checkpoint, which may be another model's: its shape must be the entry's.
    ///   - checkpoint: The checkpoint.
    ///   - index: The entry of the layout that it becomes.
    /// - Throws: `CheckpointError` for a tensor that is missing, malformed or not finite, with its file and name.
    public func read(_ role: TensorRole, of checkpoint: Checkpoint, into index: Int) throws(CheckpointError) {
        let entry = self.layout.entries[index]
        let view = try checkpoint.tensor(role)
        precondition(view.elementCount == entry.range.count, "\(view.name) has another shape than \(entry.name)")
        let target = self.start(index)
        view.withUnsafeBytes { bytes in
            if let base = bytes.baseAddress {
                view.dtype.read(base, count: entry.range.count, into: target)
            }
        }
        guard self[index].allSatisfy(\.isFinite) else {
            throw CheckpointError(
                code: .notFinite,
                message: "has an element that is an infinity or not a number in float32; fetch the checkpoint again",
                file: checkpoint.directory,
                tensor: checkpoint.configuration.name(of: role)
            )
        }
    }

    /// The tensors under the names that transformers loads, as float32 or rounded to bfloat16.
    ///
    /// The views read this buffer's memory where they are float32: write them before the weights change again.
    ///
    /// - Parameter bfloat16: Whether to round, to nearest even.
    /// - Returns: One view for each entry of the layout, in its order.
    /// - Throws: `CheckpointError` where a tensor cannot be described; never for a layout made from a configuration.
    public func tensors(bfloat16: Bool = false) throws(CheckpointError) -> [TensorView] {
        var views: [TensorView] = []
        views.reserveCapacity(self.layout.entries.count)
        for (index, entry) in self.layout.entries.enumerated() {
            let elements = self[index]
            if bfloat16 {
                var bytes = [UInt8](repeating: 0, count: elements.count * DType.bfloat16.byteCount)
                bytes.withUnsafeMutableBytes { target in
                    if let base = target.baseAddress, let source = elements.baseAddress {
                        DType.bfloat16.write(source, count: elements.count, to: base)
                    }
                }
                views.append(try TensorView(name: entry.name, dtype: .bfloat16, shape: entry.shape, bytes: bytes))
            } else {
                views.append(
                    try TensorView(
                        name: entry.name,
                        dtype: .float32,
                        shape: entry.shape,
                        lending: UnsafeRawBufferPointer(elements),
                        of: self
                    )
                )
            }
        }
        return views
    }
}

/// A step's gradients, and which tensors got any.
public final class Gradients: @unchecked Sendable {
    // Safety: as for `ParameterBuffer`; `touched` is written by the step's caller alone.

    /// One number for each parameter; zeros where a tensor is untouched.
    public let values: ParameterBuffer

    /// Whether each tensor of the layout got a gradient.
    ///
    /// An expert without a token did not.
    public var touched: [Bool]

    /// Whether each tensor's gradient is computed; the others stay zeros and untouched.
    public let wanted: [Bool]

    /// Whether a tensor that is untouched may hold numbers of an earlier step.
    private var isStale: [Bool]

    /// Makes gradients of zero, nothing touched.
    ///
    /// - Parameters:
    ///   - layout: Where the tensors lie.
    ///   - wanted: For each entry of the layout whether its gradient is computed; nil for all.
    public init(layout: ParameterLayout, wanted: [Bool]? = nil) {
        precondition(wanted?.count ?? layout.entries.count == layout.entries.count, "a choice of another layout")
        self.values = ParameterBuffer(layout: layout)
        self.touched = Array(repeating: false, count: layout.entries.count)
        self.wanted = wanted ?? Array(repeating: true, count: layout.entries.count)
        self.isStale = self.touched
    }

    /// Sets every gradient back to zero and untouched.
    public func clear() {
        for index in self.touched.indices where self.wanted[index] {
            self.values[index].update(repeating: 0)
            self.touched[index] = false
            self.isStale[index] = false
        }
    }

    /// Makes every tensor untouched without a pass over its numbers: what touches it first overwrites them, and
    /// ``clearUntouched(pool:)`` zeroes the others.
    func begin() {
        for index in self.touched.indices {
            self.isStale[index] = self.isStale[index] || self.touched[index]
            self.touched[index] = false
        }
    }

    /// Whether a tensor holds an earlier step's numbers, which are to be overwritten.
    func isLeftOver(_ index: Int) -> Bool { !self.touched[index] && self.isStale[index] }

    /// Zeroes a tensor that nothing has touched yet, for those who add to it.
    func prepareToAdd(_ index: Int) {
        if self.isLeftOver(index) {
            self.values[index].update(repeating: 0)
        }
        self.touched[index] = true
    }

    /// Ends what ``begin()`` began: tensors that nothing touched hold zeros again.
    func clearUntouched(pool: WorkPool) {
        let stale = self.touched.indices.filter { !self.touched[$0] && self.isStale[$0] }
        for index in stale {
            let tensor = self.values[index]
            WorkPool.share(tensor.count, width: 1, among: pool) { range in
                UnsafeMutableBufferPointer(rebasing: tensor[range]).update(repeating: 0)
            }
        }
        for index in self.isStale.indices { self.isStale[index] = false }
    }
}
