//! Tables of the profile `norm-1`: nicknames, suffixes, particles, placeholders and street words.
//!
//! These tables are part of the profile: a changed entry is a new profile, because two nodes that normalise
//! differently derive different tokens. All entries are upper-case letters.

/// Most roots of one nickname that are used.
pub const ROOTS_MAX: usize = 3;

/// Formal names and the short forms that stand for them.
pub(super) const NICKNAMES: &[(&str, &[&str])] = &[
    ("ABIGAIL", &["ABBY", "ABBIE", "GAIL"]),
    ("ALBERT", &["AL", "BERT", "BERTIE"]),
    ("ALEXANDER", &["ALEX", "ALEC", "SANDY", "SASHA", "XANDER"]),
    ("ALEXANDRA", &["ALEX", "SANDRA", "SASHA", "LEXI"]),
    ("ALFRED", &["AL", "FRED", "ALFIE"]),
    ("AMANDA", &["MANDY"]),
    ("ANDREW", &["ANDY", "DREW"]),
    ("ANN", &["ANNE", "ANNA", "ANNIE", "NANCY"]),
    ("ANTHONY", &["TONY"]),
    ("ANTONIO", &["TONI", "TONO"]),
    ("BARBARA", &["BARB", "BABS", "BARBIE"]),
    ("BENJAMIN", &["BEN", "BENNY", "BENJI"]),
    (
        "CATHERINE",
        &[
            "KATHERINE",
            "KATHRYN",
            "CATHY",
            "KATHY",
            "KATE",
            "KATIE",
            "KAT",
            "KITTY",
            "CATE",
        ],
    ),
    ("CHARLES", &["CHARLIE", "CHUCK", "CHAS", "CHAZ"]),
    ("CHRISTINE", &["CHRISTINA", "CHRIS", "CHRISSY", "TINA", "CRISTINA"]),
    ("CHRISTOPHER", &["CHRIS", "KIT", "TOPHER"]),
    ("CYNTHIA", &["CINDY"]),
    ("DANIEL", &["DAN", "DANNY"]),
    ("DAVID", &["DAVE", "DAVY"]),
    ("DEBORAH", &["DEBRA", "DEB", "DEBBIE", "DEBBY"]),
    ("DONALD", &["DON", "DONNIE"]),
    ("DOROTHY", &["DOT", "DOTTIE", "DOLLY"]),
    ("EDWARD", &["ED", "EDDIE", "NED", "TED", "TEDDY"]),
    ("ELEANOR", &["ELLIE", "NELL", "NORA", "LENORE"]),
    (
        "ELIZABETH",
        &[
            "LIZ", "LIZZIE", "BETH", "BETTY", "ELIZA", "LISA", "BETSY", "LIBBY", "LIBBIE",
        ],
    ),
    ("EMILY", &["EM", "EMMIE"]),
    ("EUGENE", &["GENE"]),
    ("FRANCES", &["FRAN", "FANNY", "FRANNIE"]),
    ("FRANCIS", &["FRANK", "FRANKIE"]),
    ("FRANCISCO", &["PACO", "PANCHO", "CISCO"]),
    ("FREDERICK", &["FRED", "FREDDY", "FREDDIE", "RICK"]),
    ("GABRIEL", &["GABE"]),
    ("GERALD", &["GERRY", "JERRY"]),
    ("GREGORY", &["GREG"]),
    ("GUADALUPE", &["LUPE", "LUPITA"]),
    ("HAROLD", &["HAL", "HARRY"]),
    ("HELEN", &["HELENA", "NELL", "NELLIE"]),
    ("HENRY", &["HANK", "HARRY", "HAL"]),
    ("IGNACIO", &["NACHO"]),
    ("ISABELLA", &["ISABEL", "BELLA", "IZZY"]),
    ("JACOB", &["JAKE", "COBY"]),
    ("JAMES", &["JIM", "JIMMY", "JAMIE", "JIMMIE"]),
    ("JANET", &["JAN"]),
    ("JEFFREY", &["JEFF", "GEOFF", "GEOFFREY"]),
    ("JENNIFER", &["JEN", "JENNY", "JENNIE"]),
    ("JESSICA", &["JESS", "JESSIE"]),
    ("JESUS", &["CHUY", "CHUCHO"]),
    ("JOHN", &["JACK", "JOHNNY", "JON", "JOHNNIE"]),
    ("JONATHAN", &["JON", "JONATHON", "NATHAN"]),
    ("JOSE", &["PEPE", "CHEPE"]),
    ("JOSEPH", &["JOE", "JOEY", "JO"]),
    ("JOSHUA", &["JOSH"]),
    ("JUDITH", &["JUDY", "JUDI"]),
    ("KENNETH", &["KEN", "KENNY"]),
    ("KIMBERLY", &["KIM", "KIMMY"]),
    ("LAWRENCE", &["LARRY", "LAURENCE", "LAURIE"]),
    ("LEONARD", &["LEN", "LENNY", "LEO"]),
    ("LOUIS", &["LEWIS", "LOU", "LOUIE"]),
    ("MADELINE", &["MADDIE", "MADDY", "MADELEINE"]),
    (
        "MARGARET",
        &[
            "MAGGIE", "MEG", "PEGGY", "MARGE", "MARGIE", "PEG", "RITA", "GRETA", "DAISY",
        ],
    ),
    ("MARTHA", &["MARTY", "PATTY"]),
    ("MARTIN", &["MARTY"]),
    ("MARY", &["MARIE", "MARIA", "MOLLY", "POLLY", "MAMIE"]),
    ("MATTHEW", &["MATT", "MATTY"]),
    ("MICHAEL", &["MIKE", "MICK", "MICKEY", "MIKEY", "MICHEAL"]),
    ("NATHANIEL", &["NATE", "NAT", "NATHAN"]),
    ("NICHOLAS", &["NICK", "NICKY", "NICOLAS"]),
    ("OLIVIA", &["LIV", "LIVVY"]),
    ("PAMELA", &["PAM", "PAMMY"]),
    ("PATRICIA", &["PAT", "PATTY", "PATSY", "TRICIA", "TRISH"]),
    ("PATRICK", &["PAT", "PADDY", "RICK"]),
    ("PETER", &["PETE"]),
    ("PHILIP", &["PHIL", "PHILLIP", "PIP"]),
    ("RAYMOND", &["RAY"]),
    ("REBECCA", &["BECKY", "BECCA", "BECKIE"]),
    ("RICHARD", &["DICK", "RICK", "RICH", "RICKY", "RICHIE"]),
    ("ROBERT", &["BOB", "BOBBY", "ROB", "ROBBIE", "BERT", "BOBBIE"]),
    ("RONALD", &["RON", "RONNIE"]),
    ("RUSSELL", &["RUSS"]),
    ("SAMANTHA", &["SAM", "SAMMY"]),
    ("SAMUEL", &["SAM", "SAMMY"]),
    ("SARAH", &["SARA", "SALLY", "SADIE"]),
    ("STEPHANIE", &["STEPH", "STEFFI"]),
    ("STEPHEN", &["STEVE", "STEVEN", "STEVIE", "STEPHAN"]),
    ("SUSAN", &["SUE", "SUSIE", "SUZY", "SUSANNE", "SUZANNE"]),
    ("TERESA", &["THERESA", "TERRY", "TERI", "TESS", "TESSA"]),
    ("TERENCE", &["TERRY", "TERRENCE"]),
    ("THEODORE", &["TED", "TEDDY", "THEO"]),
    ("THOMAS", &["TOM", "TOMMY"]),
    ("TIMOTHY", &["TIM", "TIMMY"]),
    ("VALERIE", &["VAL"]),
    ("VICTORIA", &["VICKY", "VICKI", "TORI"]),
    ("VINCENT", &["VINCE", "VINNIE", "VIN"]),
    ("VIRGINIA", &["GINNY", "GINGER"]),
    ("WALTER", &["WALT", "WALLY"]),
    ("WILLIAM", &["BILL", "BILLY", "WILL", "WILLIE", "LIAM", "WILLY"]),
    ("ZACHARY", &["ZACH", "ZACK", "ZAC"]),
];

/// Generational suffixes, with the form they are written in here.
pub(super) const SUFFIXES: &[(&str, &str)] = &[
    ("JR", "JR"),
    ("JUNIOR", "JR"),
    ("SR", "SR"),
    ("SENIOR", "SR"),
    ("II", "II"),
    ("2ND", "II"),
    ("III", "III"),
    ("3RD", "III"),
    ("IV", "IV"),
    ("4TH", "IV"),
];

/// Professional and honorary words that are no part of a name.
pub(super) const TITLES: &[&str] = &[
    "MR", "MRS", "MS", "MISS", "DR", "PROF", "MD", "PHD", "DDS", "DVM", "JD", "RN", "ESQ", "SIR",
];

/// Particles that belong to the family name but are no family name alone.
pub(super) const PARTICLES: &[&str] = &[
    "DE", "DEL", "DELA", "LA", "LAS", "LOS", "DA", "DI", "DO", "DOS", "VAN", "VON", "DER", "DEN", "TEN", "TER", "EL",
    "AL", "BIN", "IBN", "Y", "E",
];

/// Words that stand where a name is not known.
pub(super) const PLACEHOLDER_NAMES: &[&str] = &[
    "UNKNOWN",
    "UNK",
    "UNNAMED",
    "NONAME",
    "NOT",
    "NONE",
    "NA",
    "ANONYMOUS",
    "TEST",
    "TESTPATIENT",
    "XX",
    "XXX",
    "XXXX",
    "ZZ",
    "ZZZ",
    "ZZTEST",
    "BABY",
    "BABYBOY",
    "BABYGIRL",
    "NEWBORN",
    "INFANT",
    "BOY",
    "GIRL",
    "TRAUMA",
    "JOHNDOE",
    "JANEDOE",
    "DECEASED",
    "PATIENT",
];

/// Street words and their short forms.
pub(super) const STREET_WORDS: &[(&str, &str)] = &[
    ("STREET", "ST"),
    ("AVENUE", "AVE"),
    ("AV", "AVE"),
    ("ROAD", "RD"),
    ("DRIVE", "DR"),
    ("LANE", "LN"),
    ("BOULEVARD", "BLVD"),
    ("COURT", "CT"),
    ("PLACE", "PL"),
    ("CIRCLE", "CIR"),
    ("TERRACE", "TER"),
    ("HIGHWAY", "HWY"),
    ("PARKWAY", "PKWY"),
    ("SQUARE", "SQ"),
    ("NORTH", "N"),
    ("SOUTH", "S"),
    ("EAST", "E"),
    ("WEST", "W"),
];

/// Words behind which a flat or room number follows: no part of the street.
pub(super) const UNIT_WORDS: &[&str] = &[
    "APT",
    "APARTMENT",
    "UNIT",
    "SUITE",
    "STE",
    "FLOOR",
    "FL",
    "ROOM",
    "RM",
    "LOT",
];

/// The formal names that a given name may stand for: itself when it is none of the table, at most [`ROOTS_MAX`].
#[must_use]
pub fn roots(given: &str) -> Vec<String> {
    let mut roots: Vec<String> = NICKNAMES
        .iter()
        .filter(|(root, short)| *root == given || short.contains(&given))
        .map(|(root, _)| (*root).to_owned())
        .take(ROOTS_MAX)
        .collect();
    if roots.is_empty() {
        roots.push(given.to_owned());
    }
    roots
}

/// The written form of a generational suffix, or none.
#[must_use]
pub fn suffix(word: &str) -> Option<&'static str> {
    SUFFIXES
        .iter()
        .find(|(form, _)| *form == word)
        .map(|(_, written)| *written)
}

/// Whether the word is a title.
#[must_use]
pub fn is_title(word: &str) -> bool {
    TITLES.contains(&word)
}

/// Whether the word is a particle of a family name.
#[must_use]
pub fn is_particle(word: &str) -> bool {
    PARTICLES.contains(&word)
}

/// Whether the name, without spaces, stands for "not known".
#[must_use]
pub fn is_placeholder(name: &str) -> bool {
    PLACEHOLDER_NAMES.contains(&name)
}

/// The short form of a street word.
#[must_use]
pub fn street_word(word: &str) -> &str {
    STREET_WORDS
        .iter()
        .find(|(long, _)| *long == word)
        .map_or(word, |(_, short)| short)
}

/// Whether a flat or room number follows the word.
#[must_use]
pub fn is_unit_word(word: &str) -> bool {
    UNIT_WORDS.contains(&word)
}

/// American Soundex (four characters), or none when the text has no letter A-Z.
#[must_use]
pub fn soundex(text: &str) -> Option<String> {
    let digit = |letter: char| match letter {
        'B' | 'F' | 'P' | 'V' => '1',
        'C' | 'G' | 'J' | 'K' | 'Q' | 'S' | 'X' | 'Z' => '2',
        'D' | 'T' => '3',
        'L' => '4',
        'M' | 'N' => '5',
        'R' => '6',
        _ => '0',
    };
    let mut letters = text.chars().filter(char::is_ascii_uppercase);
    let first = letters.next()?;
    let mut code = String::from(first);
    let mut last = digit(first);
    for letter in letters {
        let next = digit(letter);
        // H and W do not part two letters of one sound; vowels do.
        if matches!(letter, 'H' | 'W') {
            continue;
        }
        if next != '0' && next != last {
            code.push(next);
        }
        last = next;
        if code.len() == 4 {
            break;
        }
    }
    while code.len() < 4 {
        code.push('0');
    }
    Some(code)
}

#[cfg(test)]
mod tests {
    use super::{roots, soundex, suffix};

    #[test]
    fn soundex_follows_the_archive_rules() {
        for (name, code) in [
            ("ROBERT", "R163"),
            ("RUPERT", "R163"),
            ("ASHCRAFT", "A261"),
            ("TYMCZAK", "T522"),
            ("PFISTER", "P236"),
            ("HONEYMAN", "H555"),
            ("LEE", "L000"),
        ] {
            assert_eq!(soundex(name).as_deref(), Some(code), "{name}");
        }
        assert_eq!(soundex("李"), None);
    }

    #[test]
    fn a_nickname_has_up_to_three_roots() {
        assert_eq!(roots("BOB"), ["ROBERT"]);
        assert_eq!(roots("ALEX"), ["ALEXANDER", "ALEXANDRA"]);
        assert_eq!(roots("ROBERT"), ["ROBERT"]);
        assert_eq!(roots("WANJIRU"), ["WANJIRU"]);
        assert_eq!(suffix("JUNIOR"), Some("JR"));
    }
}
