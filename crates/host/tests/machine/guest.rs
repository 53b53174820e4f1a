//! Guests of one sector: real-mode programs, assembled by hand, that say something and then do one thing.

/// Where the firmware puts the sector.
const ORIGIN: u16 = 0x7c00;
const SECTOR: usize = 512;
/// SeaBIOS starts from no disk that is shorter than a cylinder of 16 heads and 63 sectors.
const DISK: usize = 1024 * 1024;

/// What a guest does once it has said its word.
#[derive(Clone, Copy)]
pub enum Then {
    /// Halts for ever.
    Halt,
    /// Keeps its processor busy for ever.
    Spin,
    /// Says it again, and again.
    Flood,
    /// Powers itself off (ACPI: SLP_EN in PM1a_CNT).
    PowerOff,
    /// Powers itself off when the button is pressed (ACPI: PWRBTN_EN in PM1_EN, PWRBTN_STS in PM1_STS).
    ObeyButton,
    /// Writes the second to eighth mebibyte of its disk (BIOS interrupt 0x13, extended write), then says `D`, or `F`
    /// where a write failed.
    FillDisk,
    /// Resets the machine the first time, then halts: told by a flag in CMOS memory, which a reset leaves alone.
    ResetOnce,
}

impl Then {
    fn code(self) -> Vec<u8> {
        const POWER_OFF: &[u8] = &[
            0xba, 0x04, 0x06, // mov dx, 0x604
            0xb8, 0x00, 0x20, // mov ax, 0x2000
            0xef, // out dx, ax
        ];
        const HALT: &[u8] = &[0xf4, 0xeb, 0xfd]; // hlt; jmp -1
        match self {
            Then::Halt => HALT.to_vec(),
            Then::Spin => vec![0xeb, 0xfe], // jmp to itself
            // To the first instruction: each repetition prints all.
            Then::Flood => vec![0xea, ORIGIN as u8, (ORIGIN >> 8) as u8, 0, 0], // jmp 0:ORIGIN
            Then::PowerOff => [POWER_OFF, HALT].concat(),
            Then::ObeyButton => {
                let wait = [
                    0xba, 0x02, 0x06, // mov dx, 0x602
                    0xb8, 0x00, 0x01, // mov ax, 0x100
                    0xef, // out dx, ax
                    0xba, 0x00, 0x06, // mov dx, 0x600
                    0xed, // in ax, dx
                    0xf6, 0xc4, 0x01, // test ah, 1
                    0x74, 0xfa, // jz to the in
                ];
                [&wait, POWER_OFF, HALT].concat()
            }
            Then::FillDisk => {
                let fill = [
                    0xbe, 0x00, 0x06, // mov si, 0x600: the request, 16 bytes
                    0xc7, 0x04, 0x10, 0x00, // mov word [si], 16
                    0xc7, 0x44, 0x02, 0x40, 0x00, // mov word [si+2], 64 sectors
                    0xc7, 0x44, 0x04, 0x00, 0x7c, // mov word [si+4], 0x7c00: from here
                    0xc7, 0x44, 0x06, 0x00, 0x00, // mov word [si+6], 0
                    0xc7, 0x44, 0x08, 0x00, 0x08, // mov word [si+8], sector 2048
                    0xc7, 0x44, 0x0a, 0x00, 0x00, // mov word [si+10], 0
                    0xc7, 0x44, 0x0c, 0x00, 0x00, // mov word [si+12], 0
                    0xc7, 0x44, 0x0e, 0x00, 0x00, // mov word [si+14], 0
                    0xb8, 0x00, 0x43, // mov ax, 0x4300
                    0xb2, 0x80, // mov dl, 0x80
                    0xcd, 0x13, // int 0x13
                    0xb0, b'F', // mov al, 'F'
                    0x72, 0x0d, // jc to the out
                    0x83, 0x44, 0x08, 0x40, // add word [si+8], 64
                    0x81, 0x7c, 0x08, 0x00, 0x40, // cmp word [si+8], 16384
                    0x72, 0xea, // jb to the mov ax
                    0xb0, b'D', // mov al, 'D'
                    0xba, 0xf8, 0x03, // mov dx, 0x3f8
                    0xee, // out dx, al
                ];
                [&fill, HALT].concat()
            }
            Then::ResetOnce => {
                let reset = [
                    0xb0, 0x7f, // mov al, 0x7f
                    0xe6, 0x70, // out 0x70, al
                    0xe4, 0x71, // in al, 0x71
                    0x3c, 0x5a, // cmp al, 0x5a
                    0x74, 0x0e, // je to the halt
                    0xb0, 0x7f, // mov al, 0x7f
                    0xe6, 0x70, // out 0x70, al
                    0xb0, 0x5a, // mov al, 0x5a
                    0xe6, 0x71, // out 0x71, al
                    0xba, 0xf9, 0x0c, // mov dx, 0xcf9
                    0xb0, 0x06, // mov al, 6
                    0xee, // out dx, al
                ];
                [&reset, HALT].concat()
            }
        }
    }
}

/// A disk of a mebibyte whose first sector prints `word` on the serial port.
pub fn disk(word: &str, then: Then) -> Vec<u8> {
    let then = then.code();
    let print_length = 19;
    let word_at = ORIGIN + (print_length + then.len()) as u16;
    let mut sector = vec![
        0x31,
        0xc0, // xor ax, ax
        0x8e,
        0xd8, // mov ds, ax
        0xfc, // cld
        0xbe,
        word_at as u8,
        (word_at >> 8) as u8, // mov si, word
        0xac,                 // lodsb
        0x84,
        0xc0, // test al, al
        0x74,
        0x06, // jz to what is then
        0xba,
        0xf8,
        0x03, // mov dx, 0x3f8
        0xee, // out dx, al
        0xeb,
        0xf5, // jmp to the lodsb
    ];
    assert_eq!(sector.len(), print_length);
    sector.extend(then);
    sector.extend(word.bytes());
    sector.push(0);
    assert!(sector.len() <= SECTOR - 2, "the word is too long");
    sector.resize(SECTOR - 2, 0);
    sector.extend([0x55, 0xaa]);
    sector.resize(DISK, 0);
    sector
}
