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
    "abacus", "academy", "acorn", "acre", "actor", "adobe", "agent", "airport", "album", "alder",
    "almanac", "almond", "alpha", "amber", "anchor", "angel", "ankle", "antenna", "anthem", "apple",
    "apricot", "apron", "aquarium", "arcade", "arena", "armchair", "armor", "arrow", "artist",
    "aspen", "athlete", "atlas", "attic", "aunt", "autumn", "avenue", "avocado", "award", "axle",
    "baby", "badger", "bagel", "bakery", "balcony", "ballad", "balloon", "bamboo", "banana",
    "banjo", "bank", "banner", "barbecue", "barber", "barley", "barn", "barrel", "basil", "basket",
    "bath", "bathtub", "baton", "battery", "bayou", "beacon", "beak", "beard", "beaver", "bed",
    "bedroom", "beech", "beetle", "bell", "berry", "bicycle", "bike", "birch", "bird", "birthday",
    "biscuit", "bishop", "bison", "blade", "blanket", "blimp", "block", "blossom", "blouse",
    "bluebird", "bobcat", "bolt", "bone", "bonfire", "bonnet", "book", "bookcase", "border",
    "bottle", "boulder", "bowl", "box", "bracket", "brain", "branch", "brass", "bread", "breeze",
    "brick", "bridge", "broccoli", "broom", "brother", "brush", "bubble", "bucket", "buckle",
    "budget", "buffalo", "bugle", "bulb", "bumper", "bunny", "burrow", "butter", "button",
    "cabbage", "cabin", "cable", "cactus", "cake", "calf", "camel", "camera", "camp", "canal",
    "canary", "candle", "candy", "canoe", "canopy", "canvas", "canyon", "captain", "caravan",
    "carbon", "card", "cargo", "carpet", "cartoon", "cash", "cashew", "castle", "cat", "cavern",
    "cedar", "ceiling", "celery", "cellar", "cello", "cement", "center", "chain", "chalk",
    "champion", "chapel", "chapter", "charm", "cheek", "cheese", "cheetah", "cherry", "chess",
    "chestnut", "chicken", "chief", "child", "children", "chimney", "chisel", "choir", "church",
    "cider", "cinema", "circle", "circus", "city", "clam", "clarinet", "clerk", "cliff", "climate",
    "clinic", "cloud", "clover", "clown", "club", "coach", "coast", "cobra", "cobweb", "cockpit",
    "cocoa", "coconut", "cod", "coffee", "coin", "colony", "column", "comet", "compass", "computer",
    "concert", "condor", "cookie", "copper", "coral", "cork", "corner", "corridor", "cottage",
    "cotton", "cougar", "country", "court", "cousin", "coyote", "crab", "cradle", "crane", "crater",
    "crayon", "cream", "cricket", "crocus", "crop", "cross", "crowd", "crumb", "crystal", "cube",
    "cuckoo", "cucumber", "cup", "cupboard", "curb", "curry", "curtain", "curve", "cushion",
    "cycle", "cymbal", "cypress", "dahlia", "daisy", "dam", "dance", "dawn", "daylight", "decade",
    "deer", "delta", "denim", "dentist", "depot", "desk", "dessert", "diagram", "diamond", "dice",
    "diesel", "dinner", "dinosaur", "diver", "doctor", "doll", "dollar", "dolphin", "dome",
    "donkey", "door", "doorbell", "dot", "dough", "dragon", "drawer", "dress", "drill", "drum",
    "duck", "dune", "dust", "eagle", "earth", "echo", "eclipse", "editor", "eel", "egg", "elbow",
    "elephant", "elevator", "elk", "emblem", "emerald", "emperor", "empire", "engine", "estate",
    "evening", "event", "exit", "express", "eye", "fabric", "factory", "fairy", "falcon", "family",
    "fan", "farm", "farmer", "farmyard", "father", "faucet", "feast", "fence", "fender", "fern",
    "festival", "fiddle", "field", "fig", "figure", "film", "finch", "finger", "fire", "firefly",
    "fish", "flag", "flame", "flamingo", "flannel", "flask", "fleece", "fleet", "flint", "floor",
    "florist", "flute", "foam", "folder", "foot", "forest", "forge", "forum", "fossil", "fountain",
    "fragment", "freckle", "freeway", "friend", "frog", "frost", "fruit", "fuel", "funnel", "fur",
    "furnace", "galaxy", "gallery", "garage", "garden", "garlic", "garnet", "gate", "gazelle",
    "gear", "gecko", "gem", "genius", "geyser", "giant", "giraffe", "glacier", "glass", "globe",
    "glue", "goat", "gold", "gondola", "goose", "gopher", "gorilla", "gown", "granite", "grape",
    "gravel", "gravy", "grid", "grocer", "grotto", "ground", "group", "grove", "guard", "guest",
    "guide", "guitar", "gulf", "gymnast", "halo", "hamlet", "hammer", "hammock", "hamster", "hand",
    "harbor", "harness", "harp", "harvest", "hatch", "hawk", "hazel", "head", "heart", "heather",
    "hedge", "hedgehog", "helmet", "hemlock", "hen", "herald", "herb", "heron", "herring",
    "hickory", "highway", "hill", "hinge", "hippo", "hive", "hobby", "hockey", "honey", "hood",
    "horizon", "hornet", "horse", "hospital", "hotel", "hound", "hub", "hummus", "hunter", "husky",
    "hyena", "iceberg", "icicle", "icon", "igloo", "iguana", "image", "index", "infant", "inlet",
    "insect", "iris", "island", "ivory", "ivy", "jacket", "jade", "jaguar", "janitor", "jasmine",
    "jazz", "jeans", "jelly", "jersey", "jet", "jewel", "jigsaw", "joke", "journal", "judge", "jug",
    "juice", "jungle", "juniper", "jury", "kale", "kangaroo", "kayak", "kelp", "kennel", "kettle",
    "key", "keyboard", "keyhole", "kid", "king", "kiosk", "kitchen", "kite", "kitten", "kiwi",
    "knee", "knife", "knight", "knot", "koala", "label", "lace", "ladder", "ladle", "lady",
    "lagoon", "lamb", "landmark", "lantern", "larch", "lark", "laser", "lasso", "lava", "lavender",
    "lawyer", "leader", "leaf", "legend", "lemon", "lens", "lentil", "leopard", "letter", "lettuce",
    "library", "light", "lilac", "lily", "lime", "linen", "lion", "list", "lizard", "llama",
    "lobster", "locket", "lodge", "log", "lotus", "lounge", "lullaby", "lunch", "lynx", "lyric",
    "machine", "magazine", "magnet", "magpie", "maid", "mallet", "mammoth", "manager", "mango",
    "mantle", "map", "maple", "marble", "margin", "market", "maroon", "marsh", "mascot", "mask",
    "mason", "master", "mattress", "maze", "meadow", "medicine", "melody", "melon", "menu",
    "mermaid", "mesa", "metal", "meteor", "milk", "mineral", "mint", "mirror", "mixer", "model",
    "mole", "monarch", "mongoose", "month", "moon", "morning", "mosaic", "moss", "mother", "motor",
    "movie", "muffin", "muscle", "museum", "mushroom", "music", "mussel", "mustard", "name",
    "napkin", "nature", "navy", "neck", "nectar", "needle", "neon", "nephew", "nest", "network",
    "news", "nickel", "niece", "noodle", "nose", "notebook", "novel", "nugget", "nurse", "nut",
    "nutmeg", "oak", "oasis", "ocean", "octagon", "octave", "octopus", "office", "olive", "omelet",
    "onion", "onyx", "opal", "opera", "orange", "orbit", "orchard", "orchid", "oregano", "organ",
    "otter", "oven", "overcoat", "owner", "oxygen", "oyster", "package", "page", "pail", "paint",
    "palace", "palm", "pancake", "panda", "panel", "panther", "pants", "papaya", "paper", "parade",
    "parasol", "parcel", "parrot", "parsley", "parsnip", "partner", "passport", "pasta", "pastry",
    "patio", "patrol", "pavement", "pavilion", "peach", "peacock", "peanut", "pearl", "pebble",
    "pecan", "pedal", "pelican", "pencil", "penguin", "penny", "people", "pepper", "person",
    "pheasant", "phone", "photo", "piano", "pickle", "picnic", "picture", "pigeon", "pillar",
    "pillow", "pilot", "pink", "pioneer", "pipe", "pirate", "piston", "pizza", "planet", "plank",
    "plastic", "plate", "platypus", "plaza", "plow", "plum", "plumber", "poem", "pollen", "pond",
    "pool", "poplar", "poppy", "portal", "porter", "postcard", "potato", "pottery", "powder",
    "prairie", "present", "prince", "prism", "prize", "puddle", "pulley", "pulp", "pumpkin",
    "puppet", "purple", "puzzle", "pyramid", "python", "quail", "quarry", "quartz", "queen",
    "quilt", "quince", "quiver", "quiz", "rabbit", "raccoon", "radar", "radio", "radish", "raft",
    "railway", "rainbow", "raincoat", "raisin", "ranger", "raven", "razor", "recipe", "record",
    "reef", "reindeer", "relay", "report", "reptile", "ribbon", "robe", "robin", "robot", "rock",
    "rodeo", "roof", "rooster", "ruby", "rudder", "ruler", "runway", "saddle", "safari", "saffron",
    "sailor", "salad", "salmon", "salt", "sandal", "sandwich", "sapling", "sapphire", "sardine",
    "satin", "saucer", "sauna", "sausage", "saw", "scale", "scarf", "school", "science", "scooter",
    "scout", "screen", "screw", "scroll", "seal", "seashell", "season", "secret", "seed", "senate",
    "sequoia", "shadow", "shark", "sheep", "shelf", "shield", "ship", "shirt", "shore", "shoulder",
    "shovel", "shrimp", "shrub", "shutter", "sidecar", "sidewalk", "signal", "silver", "siren",
    "sister", "skate", "sketch", "ski", "skunk", "sleeve", "sleigh", "slipper", "slope", "snail",
    "snake", "sneaker", "snow", "soap", "sofa", "soil", "soldier", "song", "spade", "sparrow",
    "spear", "spider", "spike", "spinach", "spiral", "spirit", "sponge", "spoon", "spring",
    "spruce", "squash", "squid", "squirrel", "stable", "stadium", "staff", "stage", "stair",
    "stamp", "starch", "station", "statue", "steel", "step", "stick", "stone", "stool", "stork",
    "straw", "stream", "street", "studio", "sugar", "suitcase", "summer", "summit", "sunlight",
    "sunset", "surf", "swallow", "swan", "sweater", "symbol", "syrup", "system", "tablet", "taco",
    "tape", "target", "taxi", "tea", "teacher", "teapot", "teaspoon", "temple", "tennis", "tent",
    "terrace", "theater", "thistle", "thorn", "thread", "throne", "thumb", "thunder", "ticket",
    "tiger", "timber", "tin", "title", "toad", "tomato", "tooth", "topaz", "torch", "tornado",
    "tortoise", "toucan", "towel", "toy", "track", "tractor", "trail", "tray", "treasure", "tree",
    "treetop", "trellis", "triangle", "trophy", "trout", "trumpet", "trunk", "tulip", "tundra",
    "turkey", "turnip", "turtle", "tuxedo", "twig", "umbrella", "uncle", "uniform", "unit",
    "urchin", "valley", "valve", "vanilla", "vase", "vault", "velvet", "veranda", "vessel",
    "village", "vine", "vinegar", "vineyard", "violet", "violin", "voice", "volcano", "voyage",
    "wafer", "waffle", "wagon", "waist", "waiter", "walnut", "walrus", "waltz", "wasp", "wave",
    "wax", "weasel", "wedding", "whale", "wheat", "wheel", "window", "winter", "wolf", "woman",
    "wombat", "woodland", "workshop", "world", "worm", "wreath", "wren", "wrench", "yacht",
    "yellow", "yogurt", "yolk", "youth", "zebra", "zigzag", "zinc", "zipper", "zodiac", "zoo",
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
        assert_eq!(check_words(&[0; 32]).join(" "), "bottle farm porter pheasant");
        assert_eq!(check_words(&[1; 32]).join(" "), "jade inlet buckle toad");
        assert_eq!(check_words(b"").join(" "), "bottle farm porter pheasant");
    }
}
