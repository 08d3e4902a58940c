//! Check words: a fingerprint as four plain words that two people compare by voice.
//!
//! Four words of [`WORDS`] carry 40 bits. The fingerprint is stretched before (PBKDF2-HMAC-SHA256,
//! [`STRETCH_ROUNDS`] rounds), so that searching for another key with the same words costs about
//! 2^57 hashes. The list and its order are part of the protocol and never change.

use std::num::NonZeroU32;

use ring::pbkdf2;

/// How many words are shown.
pub const CHECK_WORD_COUNT: usize = 4;

/// Rounds of PBKDF2 in front of the words.
pub const STRETCH_ROUNDS: NonZeroU32 = NonZeroU32::new(1 << 16).unwrap();

/// Domain of the stretching.
const DOMAIN: &[u8] = b"hie check words v1";

/// The four check words of a fingerprint; both sides show the same ones for the same bytes.
///
/// Takes some tens of milliseconds on purpose.
#[must_use]
pub fn check_words(fingerprint: &[u8]) -> [&'static str; CHECK_WORD_COUNT] {
    let mut stretched = [0u8; CHECK_WORD_COUNT * 2];
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA256,
        STRETCH_ROUNDS,
        DOMAIN,
        fingerprint,
        &mut stretched,
    );
    let (pairs, _) = stretched.as_chunks::<2>();
    let mut words = [""; CHECK_WORD_COUNT];
    for (word, pair) in words.iter_mut().zip(pairs) {
        // 65536 is a multiple of 1024: every word is equally likely.
        let place = usize::from(u16::from_be_bytes(*pair)) % WORDS.len();
        *word = WORDS.get(place).copied().unwrap_or("");
    }
    words
}

/// The list, in alphabetical order; no two words differ in one letter only.
#[rustfmt::skip]
pub const WORDS: [&str; 1024] = [
    "acorn", "acre", "actor", "adobe", "agent", "album", "alder", "alley", "almond", "alpha",
    "amber", "anchor", "angel", "ankle", "apple", "apricot", "apron", "arena", "armor", "arrow",
    "artist", "aspen", "aster", "atlas", "attic", "aunt", "autumn", "avenue", "award", "axle",
    "baby", "badge", "badger", "bagel", "baker", "bakery", "ballad", "balloon", "bamboo", "banana",
    "banjo", "bank", "banner", "barber", "barley", "barn", "barrel", "basil", "basin", "basket",
    "bath", "baton", "battery", "bayou", "beacon", "beak", "beard", "beaver", "bed", "beech",
    "beetle", "bell", "bench", "berry", "bicycle", "bike", "birch", "bird", "biscuit", "bishop",
    "bison", "blade", "blanket", "blimp", "block", "blossom", "blouse", "bobcat", "bolt", "bone",
    "bonfire", "bonnet", "book", "border", "bottle", "boulder", "bowl", "box", "bracket", "brain",
    "branch", "brass", "bread", "breeze", "brick", "bridge", "broom", "brother", "brush", "bubble",
    "bucket", "buckle", "budget", "buffalo", "bugle", "bulb", "bumper", "bunny", "burrow", "butter",
    "button", "cabbage", "cabin", "cable", "cactus", "cake", "calf", "camel", "camera", "camp",
    "canal", "canary", "candle", "candy", "canoe", "canopy", "canvas", "canyon", "captain",
    "caravan", "carbon", "card", "cargo", "carpet", "cartoon", "cash", "cashew", "castle", "cat",
    "cavern", "cedar", "ceiling", "celery", "cellar", "cello", "cement", "center", "chain", "chalk",
    "chapel", "chapter", "charm", "chart", "cheek", "cheese", "cheetah", "cherry", "chess", "chest",
    "chicken", "chief", "child", "chimney", "chisel", "choir", "church", "cider", "cinema",
    "circle", "circus", "citron", "city", "clam", "clerk", "cliff", "climate", "clinic", "clock",
    "cloud", "clover", "clown", "club", "coach", "coast", "cobra", "cobweb", "cocoa", "coconut",
    "cod", "coffee", "coin", "colony", "column", "comet", "compass", "concert", "condor", "cookie",
    "copper", "coral", "cork", "corner", "cottage", "cotton", "couch", "cougar", "country", "court",
    "cousin", "coyote", "crab", "cradle", "crane", "crater", "crayon", "cream", "creek", "cricket",
    "crocus", "crop", "cross", "crowd", "crumb", "crust", "crystal", "cube", "cuckoo", "cucumber",
    "cup", "curb", "curry", "curtain", "curve", "cushion", "cycle", "cymbal", "cypress", "dahlia",
    "daisy", "dam", "dance", "dawn", "deer", "delta", "denim", "dentist", "depot", "desk",
    "dessert", "diamond", "dice", "diesel", "dinner", "diver", "doctor", "doll", "dollar",
    "dolphin", "dome", "donkey", "door", "dot", "dough", "dragon", "drain", "drawer", "dream",
    "dress", "drill", "drum", "duck", "dune", "dust", "eagle", "earth", "easel", "echo", "eclipse",
    "editor", "eel", "egg", "elbow", "elder", "elk", "ember", "emblem", "emerald", "emperor",
    "empire", "engine", "envoy", "estate", "evening", "event", "exit", "express", "eye", "fabric",
    "factory", "fairy", "falcon", "family", "fan", "farm", "farmer", "father", "faucet", "feast",
    "fence", "fender", "fern", "ferry", "festival", "fiddle", "field", "fig", "figure", "film",
    "finch", "finger", "fire", "fish", "flag", "flame", "flannel", "flask", "fleece", "fleet",
    "flint", "floor", "florist", "flute", "foam", "folder", "foot", "forest", "forge", "forum",
    "fossil", "fountain", "frame", "freckle", "freeway", "friend", "frog", "frost", "fruit", "fuel",
    "funnel", "fur", "furnace", "galaxy", "gallery", "gallon", "garage", "garden", "garlic",
    "garnet", "gate", "gazelle", "gear", "gecko", "gem", "general", "genius", "geyser", "giant",
    "ginger", "giraffe", "glacier", "glass", "globe", "glue", "goat", "gold", "goose", "gopher",
    "gorilla", "gown", "granite", "grape", "graph", "gravel", "gravy", "grid", "grocer", "grotto",
    "ground", "group", "grove", "guard", "guest", "guide", "guitar", "gulf", "habit", "halo",
    "hamlet", "hammer", "hammock", "hamster", "hand", "harbor", "harness", "harp", "harvest",
    "hatch", "hawk", "hazel", "head", "heart", "heather", "hedge", "helmet", "hemlock", "hen",
    "herald", "herb", "heron", "herring", "hickory", "highway", "hill", "hinge", "hippo", "hive",
    "hobby", "hockey", "honey", "hood", "horizon", "hornet", "horse", "hospital", "hotel", "hound",
    "hub", "hummus", "hunter", "husky", "hyena", "iceberg", "icicle", "icon", "igloo", "image",
    "income", "index", "infant", "inlet", "insect", "iris", "island", "ivory", "ivy", "jacket",
    "jade", "jaguar", "janitor", "jasmine", "jazz", "jeans", "jelly", "jersey", "jet", "jewel",
    "jigsaw", "joke", "journal", "judge", "jug", "juice", "jungle", "juniper", "jury", "kale",
    "kayak", "kelp", "kennel", "kernel", "kettle", "key", "keyhole", "kid", "king", "kiosk",
    "kitchen", "kite", "kitten", "kiwi", "knee", "knife", "knight", "knot", "koala", "label",
    "lace", "ladder", "ladle", "lady", "lagoon", "lamb", "lantern", "larch", "lark", "laser",
    "lasso", "lava", "lavender", "lawyer", "leader", "leaf", "leather", "legend", "lemon", "lens",
    "lentil", "leopard", "letter", "lettuce", "level", "library", "light", "lilac", "lily", "lime",
    "limit", "linen", "lion", "list", "lizard", "llama", "lobster", "locket", "locust", "lodge",
    "log", "lotus", "lounge", "lunch", "lynx", "lyric", "machine", "magnet", "magpie", "maid",
    "major", "mallet", "mammoth", "manager", "mango", "mantle", "map", "maple", "marble", "margin",
    "market", "maroon", "marsh", "mascot", "mask", "mason", "master", "mattress", "maze", "meadow",
    "melody", "melon", "menu", "mercury", "mermaid", "mesa", "metal", "meteor", "method", "middle",
    "milk", "mineral", "mint", "minute", "mirror", "mitten", "mixer", "model", "mole", "moment",
    "monarch", "month", "moon", "morning", "mosaic", "moss", "mother", "motor", "movie", "muffin",
    "muscle", "museum", "music", "mussel", "mustard", "name", "napkin", "nature", "navy", "neck",
    "nectar", "needle", "neon", "nephew", "nest", "nettle", "network", "news", "nickel", "niece",
    "noodle", "nose", "novel", "nugget", "number", "nurse", "nut", "nutmeg", "nylon", "oak",
    "oasis", "ocean", "octagon", "octave", "octopus", "office", "olive", "omelet", "onion", "onyx",
    "opal", "opera", "orange", "orbit", "orchard", "orchid", "oregano", "organ", "otter", "ounce",
    "oven", "owner", "oxygen", "oyster", "package", "page", "pail", "paint", "palace", "palm",
    "pancake", "panda", "panel", "panther", "pants", "papaya", "paper", "parade", "parcel",
    "parrot", "parsley", "parsnip", "partner", "pasta", "pastry", "patio", "patrol", "pavilion",
    "peach", "peacock", "peanut", "pearl", "pebble", "pecan", "pedal", "pelican", "pencil",
    "penguin", "penny", "people", "pepper", "perfume", "permit", "person", "pheasant", "phone",
    "photo", "piano", "pickle", "picnic", "picture", "pigeon", "pillar", "pillow", "pilot", "pink",
    "pioneer", "pipe", "pirate", "piston", "pizza", "planet", "plank", "plastic", "plate", "plaza",
    "plow", "plum", "plumber", "pocket", "poem", "pollen", "polo", "pond", "pool", "poplar",
    "poppy", "portal", "porter", "potato", "pottery", "powder", "prairie", "present", "prince",
    "prism", "prize", "profit", "puddle", "pulley", "pulp", "pumpkin", "puppet", "purple", "puzzle",
    "pyramid", "python", "quail", "quarry", "quartz", "queen", "quilt", "quince", "quiver", "quiz",
    "rabbit", "raccoon", "radar", "radio", "radish", "raft", "railway", "rainbow", "raisin",
    "ranger", "raven", "razor", "recipe", "record", "reef", "reindeer", "relay", "report", "resort",
    "ribbon", "robe", "robin", "robot", "rock", "rodeo", "roof", "rooster", "ruby", "rudder",
    "ruler", "runway", "saddle", "safari", "saffron", "sailor", "salad", "salmon", "salt", "sandal",
    "sapling", "sapphire", "sardine", "satin", "saucer", "sauna", "sausage", "saw", "scale",
    "scarf", "school", "science", "scooter", "scout", "screen", "screw", "scroll", "seal", "season",
    "secret", "seed", "senate", "sequoia", "sesame", "shadow", "shark", "sheep", "shelf", "shield",
    "ship", "shirt", "shore", "shoulder", "shovel", "shrimp", "shrub", "shutter", "sidewalk",
    "signal", "silver", "siren", "sister", "skate", "sketch", "ski", "skunk", "sleeve", "sleigh",
    "slipper", "slope", "snail", "snake", "sneaker", "snow", "soap", "sofa", "soil", "soldier",
    "song", "spade", "sparrow", "spear", "spider", "spike", "spinach", "spiral", "spirit", "sponge",
    "spoon", "spring", "spruce", "squash", "squid", "stable", "stadium", "staff", "stage", "stair",
    "stamp", "starch", "station", "statue", "steel", "step", "stick", "stone", "stool", "stork",
    "straw", "stream", "street", "string", "studio", "sugar", "suitcase", "summer", "summit",
    "sunset", "surf", "swallow", "swan", "sweater", "symbol", "syrup", "system", "tablet", "taco",
    "tailor", "talent", "tape", "target", "taxi", "tea", "teacher", "teapot", "temple", "tennis",
    "tent", "terrace", "theater", "thistle", "thorn", "thread", "throne", "thumb", "thunder",
    "ticket", "tiger", "timber", "tin", "title", "toad", "tomato", "tooth", "topaz", "torch",
    "tornado", "tortoise", "toucan", "towel", "toy", "track", "tractor", "trail", "tray",
    "treasure", "tree", "trellis", "triangle", "trophy", "trout", "trumpet", "trunk", "tulip",
    "tundra", "turkey", "turnip", "turtle", "tuxedo", "twig", "umbrella", "uncle", "uniform",
    "unit", "urchin", "urn", "valley", "valve", "vanilla", "vase", "vault", "veil", "velvet",
    "vendor", "veranda", "vessel", "village", "vine", "vinegar", "violet", "violin", "viper",
    "visitor", "voice", "volcano", "volume", "voyage", "vulture", "wafer", "waffle", "wagon",
    "waist", "waiter", "walnut", "walrus", "waltz", "warrior", "wasp", "wave", "wax", "weasel",
    "wedding", "whale", "wheat", "wheel", "whistle", "wicket", "willow", "window", "winter",
    "wizard", "wolf", "woman", "wombat", "workshop", "world", "worm", "wreath", "wren", "wrench",
    "writer", "yacht", "yellow", "yogurt", "yolk", "youth", "zebra", "zenith", "zephyr", "zigzag",
    "zinc", "zipper", "zodiac", "zoo",
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use std::collections::BTreeSet;

    use super::{WORDS, check_words};

    /// Whether one inserted, removed or replaced letter makes `b` of `a`.
    fn close(a: &str, b: &str) -> bool {
        let (short, long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
        let same = short.bytes().zip(long.bytes()).take_while(|(x, y)| x == y).count();
        match long.len() - short.len() {
            0 => short[same + 1..] == long[same + 1..],
            1 => short[same..] == long[same + 1..],
            _ => false,
        }
    }

    #[test]
    fn the_list_is_1024_distinct_plain_words_in_order() {
        assert_eq!(WORDS.iter().collect::<BTreeSet<_>>().len(), 1024);
        assert!(WORDS.is_sorted());
        for word in WORDS {
            assert!((3..=8).contains(&word.len()), "{word}");
            assert!(word.bytes().all(|b| b.is_ascii_lowercase()), "{word}");
        }
    }

    #[test]
    fn no_two_words_are_one_letter_apart() {
        for (place, word) in WORDS.iter().enumerate() {
            for other in &WORDS[place + 1..] {
                assert!(!close(word, other), "{word} {other}");
            }
        }
    }

    #[test]
    fn words_are_frozen() {
        assert_eq!(check_words(&[0; 32]).join(" "), "W0");
        assert_eq!(check_words(&[1; 32]).join(" "), "W1");
        assert_eq!(check_words(b"").join(" "), "WE");
    }
}
