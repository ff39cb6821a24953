"""What a reader cannot tell apart: the form of a text in which two that look alike are alike.

Two steps. `normalize` gives the text that all spans of the game refer to: NFKC without what nobody can see. `fold`
gives the key of a word, in which look-alike letters, apostrophes and signs are one. What a reader does see stays apart:
`10\u2079` is not 109, and `\u00e9` is not e.
"""

from __future__ import annotations

import re
import unicodedata

# Format characters (soft hyphen, zero-width, BOM, marks of direction), what Unicode calls default-ignorable (variation
# selectors, fillers), control characters that are no white space, and the blank Braille cell.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890-\u0891\u08e2\u115f-\u1160"
    "\u17b4-\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)

SUPERSCRIPTS = "\u2070\u00b9\u00b2\u00b3\u2074-\u2079"
SUBSCRIPTS = "\u2080-\u2089"
# NFKC would make these part of the number or the word beside them (a raised nine a nine, one half 1/2, a circled one a
# one, the trade mark two letters).
_KEPT = re.compile(
    rf"([{SUPERSCRIPTS}{SUBSCRIPTS}\u207a-\u207f\u208a-\u208e\u00bc-\u00be\u2150-\u215e\u2189\u2460-\u24ff"
    r"\u2120\u2122]+)"
)

# It would make a letter o of the ordinal sign, which stands for a degree, and blanks of accents that stand alone.
_SPACING_CHARACTER = re.compile("[\u00ba\u02da\u02dc\u00b4]")
_SPACING = str.maketrans("\u00ba\u02da\u02dc\u00b4", "\u00b0\u00b0~'")

MOST_MARKS = 30
"""Combining marks on one letter that are read; Unicode's Stream-Safe Text Format (UAX 15) has the same bound. More of
them carry nothing, and putting them in order takes quadratic time."""
_MANY_NON_LATIN = re.compile(rf"[^\x00-\u02ff]{{{MOST_MARKS + 1}}}")

_SIGNS = str.maketrans(
    {
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2212\u207b\u208b\uff0d", "-"),
        **dict.fromkeys("\u207a\u208a", "+"),
        **dict.fromkeys("\u00d7\u2715\u2716\u2a2f", "x"),
        "\u223c": "~",
        **dict.fromkeys("\u2a7d\u2266", "\u2264"),
        **dict.fromkeys("\u2a7e\u2267", "\u2265"),
        **dict.fromkeys("\u2044\u2215", "/"),
        "\u2206": "\u0394",  # increment and Delta
        "\u2211": "\u03a3",
        "\u220f": "\u03a0",
    }
)
APOSTROPHES = "'\u2018\u2019\u201b\u02b9\u02bb\u02bc\u02bd\u02c8\u02ca\u2032\u2035\u00b4\u0060\u055a\ua78c\uff07"
_APOSTROPHES = str.maketrans(dict.fromkeys(APOSTROPHES, "'"))

# Single letters that look like a Latin one, from Unicode's confusables.txt (UTS 39), those that NFKC maps left out.
_ALIKE = (
    ("ıƄƍƖƦƽǀɑɡɣɩɪɯʋʏᴄᴏᴑᴜᴠᴡᴢᶃᶌẝỿꜱꞘꞙꞟꞲꞳꞴꬲꬵꬽꭇꭈꭎꭒꭚ", "ibgIRslagyiiwuycoouvwzgyfysFfuJXBeforruuy"),  # Latin
    ("ͿΑΒΕΖΗΙΚΜΝΟΡΤΥΧοϜϳϺᴦ", "JABEZHIKMNOPTYXoFjMr"),  # Greek
    ("ЅІЈАВЕКМНОРСТУХЬагеорсухѕіјѡѴѵҮүһҽӀӏԁԌԛԜԝꙇ", "SIJABEKMHOPCTYXbareopcyxsijwVvYyheIldGqWwi"),  # Cyrillic
    ("ՍՏՕագզհոռսցքօ", "USOwqqhnnugfo"),  # Armenian
    ("ᎠᎡᎢᎥᎩᎪᎫᎬᎳᎷᎻᎽᏀᏂᏃᏏᏒᏔᏕᏙᏚᏞᏟᏢᏦᏧᏳᏴꭵꮁꮃꮓꮩꮪꮯ", "DRTiYAJEWMHYGhZbRWSVSLCPKdGBirwzvsc"),  # Cherokee
    ("ⲅⲎⲒⲔⲘⲚⲞⲟⲢⲣⲤⲥⲦⲨⲬⳐ", "rHIKMNOoPpCcTYXL"),  # Coptic
    ("ꓐꓑꓒꓓꓔꓖꓗꓙꓚꓜꓝꓟꓠꓡꓢꓣꓦꓧꓪꓫꓬꓮꓰꓲꓳꓴ", "BPdDTGKJCZFMNLSRVHWXYAEIOU"),  # Lisu
    ("ଠഠဝყჿሀዐᐯᑌᑭᑯᑲᒍᒪᕁᕼᕽᖇᖯᖴᗅᗞᗪᗰᗷᚷᛁᛕᛖⴸⴹⵏⵔⵕⵝꛟ𐊂𐊆𐊇𐊊𐊐𐊒𐊕𐊖𐊗", "OooyoUOVUPdbJLxHxRbFADDMBXIKMVEIOQXVBEFIXOPST"),  # other scripts
    ("𐊠𐊡𐊢𐊥𐊫𐊰𐊱𐊲𐊴𐋏𐌁𐌂𐌉𐌑𐌕𐌗𐐄𐐕𐐛𐐠𐐬𐐽𐑈𐒴𐓂𐓎𐓪𐓶𐔓𐔖𐔘𐔜𐔝𐔥𐔦𐔧𑜆𑜊𑜎𑜏𑢠𑢢𑢣𑢤𑢦", "ABCFOMTYXHBCIMTXOCLSocsROUouNOKCVFLXvwwwVFLYE"),
    ("𑢩𑢮𑢲𑢵𑢸𑢼𑣀𑣁𑣂𑣃𑣄𑣈𑣗𑣘𑣜𖼈𖼊𖼖𖼨𖼵𖼺𖽀𖽂𖽃", "ZELOUTvsFizoouyVTLIRSAUY"),
)
_LETTERS = str.maketrans("".join(letters for letters, _ in _ALIKE), "".join(latin for _, latin in _ALIKE))
# These are alike enough to pass inside a Latin word only: a Greek letter that stands alone is a name (alpha, gamma).
_LETTERS_AMONG_LATIN = str.maketrans("αγεηικνρστυχωкмтвн", "ayenikvpotuxwkmtbh")
_LATIN = re.compile("[A-Za-z]")


def normalize(text: str) -> str:
    """NFKC form without invisible characters: what all spans refer to. Ordinary clinical text is left as it is.

    Raised and lowered digits, fractions and circled numbers stay what they are. Takes linear time.
    """
    text = _INVISIBLE.sub("", text)
    if text.isascii():
        return text
    if _SPACING_CHARACTER.search(text):
        text = text.translate(_SPACING)
    if _MANY_NON_LATIN.search(text):
        text = _with_few_marks(text)
    if unicodedata.is_normalized("NFKC", text):
        return text
    parts = _KEPT.split(text)
    parts[::2] = (unicodedata.normalize("NFKC", part) for part in parts[::2])
    return "".join(parts)


def _with_few_marks(text: str) -> str:
    """`text` with at most `MOST_MARKS` combining marks in a row."""
    kept, marks = [], 0
    for character in text:
        marks = marks + 1 if unicodedata.category(character)[0] == "M" else 0
        if marks <= MOST_MARKS:
            kept.append(character)
    return "".join(kept)


def fold(word: str) -> str:
    """The key of a word or sign: words that a reader cannot tell apart have the same."""
    if word.isascii():
        return word.lower().replace("`", "'")
    word = word.translate(_APOSTROPHES).translate(_SIGNS).translate(_LETTERS)
    if _LATIN.search(word):
        word = word.translate(_LETTERS_AMONG_LATIN)
    return unicodedata.normalize("NFKC", word).replace("\u2044", "/").casefold()
