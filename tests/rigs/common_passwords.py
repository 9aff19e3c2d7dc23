"""Where daemon/access/common_passwords.txt comes from: the words and habits that people choose passwords by.

    python -m tests.rigs.common_passwords > daemon/access/common_passwords.txt

The published lists of leaked passwords are, from eight characters on, nearly all of four kinds: a loved word with a
number or year behind it, a walk over the keyboard, a row of digits, one thing repeated. So the list is made of these
kinds, sorted, in lower case; a test holds the file against this page.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

SHORTEST, LONGEST = 8, 20

# Words for passwords themselves, for machines and for this very product; in the languages of our users.
OF_THE_TRADE = """
password passwort passord wachtwoord motdepasse contrasena contraseña senha parola haslo geheim secret geheimnis
passw0rd p@ssw0rd p@ssword pa55word pass passwd passcode letmein login access admin administrator adm1n root toor user
guest test tester testing default changeme changeit temp temporary welcome welcome1 willkommen bienvenue hello hallo
bonjour server system network internet computer laptop desktop windows microsoft google apple android samsung oracle
cisco ubuntu debian linux database backup office company manager support service security secure private public
ollama llama mistral gateway gatelodge chatgpt openai
"""

# What a rule of "change it every month" brings forth.
SEASONS = """
spring summer autumn winter fruhling frühling sommer herbst printemps automne hiver primavera verano invierno
january february march april june july august september october november december januar februar märz juni juli oktober
dezember
"""

# What people are fond of.
LOVED = """
love iloveyou iloveu loveyou lovely lover forever baby babygirl babyboy sweetheart darling angel princess prinzessin
prince queen king master hunter killer ninja samurai warrior knight wizard magic dragon phoenix unicorn monster
shadow ghost spirit freedom liberty victory winner champion legend hero diamond crystal silver golden platinum
sunshine sunset rainbow thunder lightning storm monday friday sunday
flower rose lily daisy cherry banana orange apple lemon peanut cookie chocolate coffee cheese butter pepper ginger
honey sugar candy pizza chicken bubbles pumpkin tiger lion panther jaguar eagle falcon hawk wolf bear monkey elephant
dolphin turtle rabbit kitten kitty puppy doggy horse mustang stallion spider cobra viper python shark penguin butterfly
football fussball futbol soccer baseball basketball hockey tennis golf cricket rugby swimming fishing hunting
skateboard snowboard liverpool arsenal chelsea manchester barcelona realmadrid juventus bayern dortmund yankees lakers
cowboys steelers packers raiders redskins patriots
ferrari porsche mercedes corvette camaro yamaha suzuki honda toyota harley ducati
superman batman spiderman ironman wolverine starwars skywalker startrek matrix pokemon pikachu nintendo playstation
minecraft fortnite warcraft zelda mario naruto dragonball hogwarts harrypotter gandalf hobbit simpsons snoopy garfield
mickey tweety disney metallica nirvana slipknot eminem beatles elvis guitar music rocknroll rockstar
america canada london paris berlin chicago dallas boston texas florida california newyork brooklyn australia germany
deutschland france italia espana mexico brasil india pakistan indonesia philippines nigeria
jesus christ blessed heaven faith trustno1 whatever nothing blink182 jordan23 abc abcd abcdef asdf qwer qwert qwerty
qwertz azerty zxcvbn zxcvbnm asdfgh qazwsx
"""

# Given names that the lists are full of.
NAMES = """
michael jennifer jessica ashley michelle daniel matthew andrew joshua anthony robert thomas william james david john
joseph charles charlie george richard christopher christian nicholas jonathan benjamin alexander alexandra samantha
stephanie elizabeth victoria katherine margaret patricia barbara jasmine amanda nicole melissa heather hannah rachel
rebecca natalie danielle brandon justin jordan austin taylor tyler dylan logan mason oliver sebastian maximilian
martin stefan thorsten andreas markus julia sabrina sandra claudia susanne carlos alejandro fernando roberto
antonio francisco gabriel maria daniela carolina valentina francesco alessandro giovanni pierre nicolas isabelle
mohammed muhammad ahmed fatima krishna priya vladimir dmitri natasha svetlana
"""

FEW_ENDINGS = ("", "1", "2", "12", "123", "1234", "12345", "01", "!", "123!")
ENDINGS = (
    *FEW_ENDINGS,
    "3",
    "7",
    "10",
    "11",
    "13",
    "21",
    "22",
    "23",
    "69",
    "77",
    "99",
    "007",
    "111",
    "321",
    "1!",
    "12!",
)
YEARS = tuple(str(year) for year in range(2015, 2030))

ROWS = ("1234567890", "qwertyuiop", "asdfghjkl", "zxcvbnm", "qwertzuiop", "yxcvbnm", "azertyuiop", "abcdefghijklmnop")
COLUMNS = ("1qaz", "2wsx", "3edc", "4rfv", "5tgb", "6yhn", "7ujm", "8ik,", "9ol.", "qaz", "wsx", "edc", "rfv", "tgb")
WALKS = """
1q2w3e4r 1q2w3e4r5t 1q2w3e4r5t6y q1w2e3r4 q1w2e3r4t5 1a2b3c4d a1b2c3d4 1qaz2wsx3edc 1qazxsw2 zaq12wsx zaq1xsw2 qazwsxedc
qwer1234 1234qwer asdf1234 1234asdf qwert12345 12345qwert abcd1234 1234abcd abc12345 12345abc aa123456 a1234567
a12345678 a123456789 123456789a 12345678a q1234567 asd12345 qwe12345 qweasdzxc qwe123456 123qweasd 123qweasdzxc
asdqwe123 qweqweqwe asdasdasd zxczxczxc 147258369 159753456 789456123 963852741 741852963 12369874 14789632 18675309
1q1q1q1q
1234567q 87654321q iloveyou1 iloveyou2 ncc1701d ncc1701e drowssap trustno1 letmein1 opensesame correcthorse
correcthorsebatterystaple hunter22 thx11380 administrator root1234 toor1234 admin123 admin1234 admin12345 adminadmin
passpass testtest rootroot useruser guestguest loginlogin secret12 secret123
"""


def common_passwords() -> list[str]:
    """The list, sorted by code point; each entry casefolded, of 8 to 20 characters."""
    return sorted(
        {entry for entry in map(str.casefold, _candidates()) if SHORTEST <= len(entry) <= LONGEST},
        key=lambda entry: entry.encode(),
    )


def _candidates() -> Iterator[str]:
    yield from WALKS.split()
    for words, endings in (
        (OF_THE_TRADE, (*ENDINGS, *YEARS, "123456", "@123", "1234!")),
        (SEASONS, (*ENDINGS, *YEARS, *(year + "!" for year in YEARS))),
        (LOVED, ENDINGS),
        (NAMES, FEW_ENDINGS),
    ):
        for word in words.split():
            yield from (word + ending for ending in endings)
            yield word + word
            yield "123" + word
    for row in ROWS:
        for line in (row, row[::-1], row + row, (row + row)[::-1]):
            for start in range(len(line)):
                for length in range(SHORTEST, 13):
                    if start + length <= len(line):
                        yield line[start : start + length]
    for letter in "0123456789abcdefghijklmnopqrstuvwxyz":
        for length in range(SHORTEST, 13):
            yield letter * length
    for one in range(100):
        yield f"{one:02}" * 4
        yield f"{one:02}" * 5
    for year in range(1950, 2030):
        yield f"{year}{year}"
    for pair in range(1000, 10000, 1111):
        yield f"{pair}" * 2
    for part in ("123", "321", "abc", "1234", "4321", "12345", "qwe", "asd", "xyz"):
        for times in (2, 3, 4):
            yield part * times
    for first in COLUMNS:
        for second in COLUMNS:
            yield first + second


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    print("\n".join(common_passwords()))
