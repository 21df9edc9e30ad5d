// SPDX-License-Identifier: Apache-2.0

// Packed weights outside of this process: written to files as they lie in memory, and read from there without a copy.
extension PackedMatrix {
    /// The version of the form that packed weights have in memory and in files.
    ///
    /// To be raised with every change of what `ck_pack` writes: files of another version are refused.
    public static let layoutVersion = 1

    /// Rows of a weight tensor that one panel holds.
    public static var panelRows: Int { self.panelColumns }

    /// Packed weights begin at multiples of so many bytes.
    public static let alignment = 64

    /// Bytes of packed weights in a file: those in memory, filled up to a multiple of ``alignment``.
    ///
    /// - Parameters:
    ///   - outputs: Rows of the weight tensor, at least 1.
    ///   - inputs: Columns of the weight tensor, at least 1.
    ///   - dtype: How the elements are kept.
    /// - Returns: The bytes; nil where they are more than a number can hold.
    public static func storedByteCount(outputs: Int, inputs: Int, dtype: PackedDType) -> Int? {
        guard outputs > 0, inputs > 0 else { return nil }
        let panels = (outputs - 1) / self.panelColumns + 1
        var count = dtype.byteCount
        for factor in [panels, inputs, self.panelColumns] {
            let (product, overflow) = count.multipliedReportingOverflow(by: factor)
            if overflow { return nil }
            count = product
        }
        return self.padded(count)
    }

    static func padded(_ byteCount: Int) -> Int? {
        let (sum, overflow) = byteCount.addingReportingOverflow(self.alignment - 1)
        return overflow ? nil : sum / self.alignment * self.alignment
    }

    /// Takes packed weights where they lie, without reading them; nil where the number of bytes or the place is not one
    /// that such a matrix has.
    ///
    /// - Parameters:
    ///   - stored: What ``stored`` gave for a matrix of this size, at a multiple of ``alignment``; never written to.
    ///   - owner: Keeps the memory as long as it lives.
    ///   - outputs: Rows of the weight tensor.
    ///   - inputs: Columns of the weight tensor.
    ///   - dtype: How the elements are kept.
    public convenience init?(
        stored: UnsafeRawBufferPointer,
        owner: any AnyObject & Sendable,
        outputs: Int,
        inputs: Int,
        dtype: PackedDType
    ) {
        guard let base = stored.baseAddress, Int(bitPattern: base).isMultiple(of: Self.alignment),
            stored.count == Self.storedByteCount(outputs: outputs, inputs: inputs, dtype: dtype)
        else { return nil }
        self.init(unchecked: base, owner: owner, outputs: outputs, inputs: inputs, dtype: dtype)
    }

    /// The packed weights as a file holds them; valid as long as this object lives.
    public var stored: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: self.storage, count: Self.padded(self.byteCount) ?? self.byteCount)
    }
}
