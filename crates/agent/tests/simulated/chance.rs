//! Chance by a seed: SplitMix64.

pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn of(seed: u64) -> Self {
        // Neighbours are to have nothing in common.
        let number = Self(seed).number();
        Self(number ^ 0x5851_f42d_4c95_7f2d)
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to before `end`.
    pub(crate) fn below(&mut self, end: i64) -> i64 {
        (self.number() % end.unsigned_abs().max(1)).cast_signed()
    }

    /// Once in so many times.
    pub(crate) fn once_in(&mut self, times: i64) -> bool {
        self.below(times) == 0
    }
}
