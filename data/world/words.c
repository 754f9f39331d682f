/* words.c -- what there is in the world: every word that a slot can hold, once.
 *
 * A row is tags, then forms in the order of the type's column names.  Tags say what a
 * word can do in a story; columns say how it is written.  Only what varies is written
 * down: articles, plurals of verbs and capitals are the grammar's work. */
#include "data/world/world.h"

#include <string.h>

#define GIRL(tags, name) {tags, {name, "girl", "she", "her", "her"}}
#define BOY(tags, name) {tags, {name, "boy", "he", "him", "his"}}
static const cm_word persons[] = {
    GIRL("child girl", "Anna"), GIRL("child girl", "Mia"), GIRL("child girl", "Lily"),
    GIRL("child girl", "Sara"), GIRL("child girl", "Emma"), GIRL("child girl", "Nora"),
    GIRL("child girl", "Ruby"), GIRL("child girl", "Ella"), GIRL("child girl", "Zoe"),
    GIRL("child girl", "Ivy"), GIRL("child girl", "Maya"), GIRL("child girl", "Lucy"),
    GIRL("child girl", "Amy"), GIRL("child girl", "Priya"), GIRL("child girl", "Aisha"),
    GIRL("child girl", "Mei"), GIRL("child girl", "Lena"), GIRL("child girl", "Clara"),
    BOY("child boy", "Tom"), BOY("child boy", "Ben"), BOY("child boy", "Sam"),
    BOY("child boy", "Max"), BOY("child boy", "Leo"), BOY("child boy", "Finn"),
    BOY("child boy", "Omar"), BOY("child boy", "Jack"), BOY("child boy", "Noah"),
    BOY("child boy", "Ravi"), BOY("child boy", "Paul"), BOY("child boy", "Hugo"),
    BOY("child boy", "Luis"), BOY("child boy", "Adam"), BOY("child boy", "Kofi"),
    BOY("child boy", "Nico"), BOY("child boy", "Oscar"), BOY("child boy", "Theo"),
    {"family", {"Mom", "woman", "she", "her", "her"}},
    {"family", {"Dad", "man", "he", "him", "his"}},
    {"family", {"Grandma", "woman", "she", "her", "her"}},
    {"family", {"Grandpa", "man", "he", "him", "his"}},
    {"family", {"Aunt Rose", "woman", "she", "her", "her"}},
    {"family", {"Uncle Joe", "man", "he", "him", "his"}},
    {"teacher", {"Miss Green", "woman", "she", "her", "her"}},
    {"teacher", {"Mister Hill", "man", "he", "him", "his"}},
    {"teacher", {"Miss Bell", "woman", "she", "her", "her"}},
};

const char *const cm_colours[] = {"red", "blue", "green", "yellow", "white", "black",
                                  "brown", "orange", "pink", "purple"};
const int cm_n_colours = (int)(sizeof cm_colours / sizeof *cm_colours);

/* Each with a colour. */
static const cm_word things[] = {
    {"toy small gift", {"ball"}}, {"toy small gift", {"car"}},
    {"toy small gift", {"doll"}}, {"toy gift", {"kite"}},
    {"toy small gift", {"boat"}}, {"toy gift", {"drum"}},
    {"toy small gift", {"robot"}}, {"toy small gift", {"train"}},
    {"toy small gift", {"top"}}, {"toy small gift", {"whistle"}},
    {"toy small gift", {"teddy bear"}}, {"toy small gift", {"puzzle"}},
    {"small gift", {"book"}}, {"small gift", {"pencil"}}, {"small gift", {"cup"}},
    {"small gift", {"ring"}}, {"small gift", {"lamp"}}, {"small", {"key"}},
    {"small gift", {"box of paints"}}, {"small", {"bag"}}, {"small gift", {"clock"}},
    {"small wear", {"hat"}}, {"small wear", {"cap"}}, {"wear small gift", {"scarf"}},
    {"wear small", {"sock"}}, {"wear small", {"glove"}}, {"wear", {"coat"}},
    {"small", {"bucket"}}, {"small", {"basket"}}, {"small", {"blanket"}},
};

/* Things that come in numbers. */
static const cm_word kinds[] = {
    {"food sold fruit", {"apple", "apples"}}, {"food sold fruit", {"pear", "pears"}},
    {"food sold fruit", {"plum", "plums"}}, {"food sold fruit", {"peach", "peaches"}},
    {"food sold fruit", {"orange", "oranges"}}, {"food sold fruit", {"lemon", "lemons"}},
    {"food sold fruit", {"banana", "bananas"}},
    {"food sold fruit", {"cherry", "cherries"}},
    {"sold egg cook", {"egg", "eggs"}}, {"sold cook", {"carrot", "carrots"}},
    {"sold cook", {"potato", "potatoes"}}, {"sold cook", {"tomato", "tomatoes"}},
    {"sold cook", {"onion", "onions"}},
    {"food sold sweet", {"bun", "buns"}}, {"food sold sweet", {"cookie", "cookies"}},
    {"food sweet", {"candy", "candies"}}, {"food sold sweet", {"muffin", "muffins"}},
    {"food sweet", {"pancake", "pancakes"}},
    {"found sea", {"shell", "shells"}}, {"found sea", {"pebble", "pebbles"}},
    {"found wood", {"acorn", "acorns"}}, {"found wood", {"leaf", "leaves"}},
    {"found wood", {"feather", "feathers"}}, {"found wood", {"pine cone", "pine cones"}},
    {"found field", {"flower", "flowers"}}, {"found field", {"daisy", "daisies"}},
    {"found field", {"berry", "berries"}},
    {"sold own", {"marble", "marbles"}}, {"sold own", {"sticker", "stickers"}},
    {"sold own", {"balloon", "balloons"}}, {"sold own", {"crayon", "crayons"}},
    {"own", {"card", "cards"}}, {"own", {"button", "buttons"}},
    {"sold own", {"bead", "beads"}},
    {"money", {"coin", "coins"}}, /* `$` in patterns; keep last */
};

static const cm_word animals[] = {
    {"pet farm", {"cat", "cats", "some milk", "purred"}},
    {"pet farm", {"dog", "dogs", "a bone", "wagged its tail"}},
    {"pet", {"rabbit", "rabbits", "some lettuce", "wiggled its nose"}},
    {"pet", {"mouse", "mice", "some cheese", "squeaked"}},
    {"pet", {"parrot", "parrots", "some nuts", "said hello"}},
    {"pet pond", {"turtle", "turtles", "some grass", "blinked slowly"}},
    {"farm pond", {"duck", "ducks", "some corn", "quacked"}},
    {"farm pond", {"goose", "geese", "some wheat", "honked"}},
    {"farm", {"hen", "hens", "some seeds", "clucked"}},
    {"farm", {"cow", "cows", "some hay", "mooed"}},
    {"farm", {"horse", "horses", "some oats", "stamped its foot"}},
    {"farm", {"sheep", "sheep", "some clover", "bleated"}},
    {"farm", {"goat", "goats", "some leaves", "jumped"}},
    {"farm", {"pig", "pigs", "some turnips", "grunted"}},
    {"pond", {"frog", "frogs", "a fly", "croaked"}},
    {"pond", {"fish", "fish", "some crumbs", "splashed"}},
    {"zoo", {"lion", "lions", "some meat", "roared"}},
    {"zoo", {"monkey", "monkeys", "some bananas", "chattered"}},
    {"zoo", {"elephant", "elephants", "some melons", "waved its trunk"}},
    {"zoo", {"bear", "bears", "some honey", "growled"}},
    {"zoo", {"zebra", "zebras", "some straw", "trotted around"}},
};

/* noun, where, whither, what one sees there. */
static const cm_word places[] = {
    {"home in", {"house", "at home", "home", "the table was set and the kettle was warm"}},
    {"out play", {"park", "in the park", "to the park",
     "children played on the green grass"}},
    {"out play wood", {"forest", "in the forest", "to the forest",
     "the tall trees whispered in the wind"}},
    {"out play sea", {"beach", "at the beach", "to the beach",
     "small waves rolled over the sand"}},
    {"out play field", {"meadow", "in the meadow", "to the meadow",
     "bees flew from flower to flower"}},
    {"out play field", {"garden", "in the garden", "to the garden",
     "roses grew along the wall"}},
    {"out farm trip", {"farm", "at the farm", "to the farm",
     "a tractor stood beside the big barn"}},
    {"out zoo trip", {"zoo", "at the zoo", "to the zoo",
     "people stood in front of the cages"}},
    {"out pond trip", {"pond", "at the pond", "to the pond",
     "water lilies floated on the still water"}},
    {"out play field", {"hill", "on the hill", "to the hill",
     "one could see the whole village"}},
    {"out play", {"playground", "at the playground", "to the playground",
     "the swings went up and down"}},
    {"out play sea", {"river", "at the river", "to the river",
     "the clear water ran over the stones"}},
    {"shop out", {"market", "at the market", "to the market",
     "the stalls were full of good things"}},
    {"shop in", {"shop", "in the shop", "to the shop",
     "the shelves reached up to the ceiling"}},
    {"shop in", {"store", "in the store", "to the store",
     "bright lamps hung over the counter"}},
    {"in quiet", {"library", "in the library", "to the library",
     "everybody read without a sound"}},
    {"in school", {"school", "at school", "to school", "the clock ticked on the wall"}},
    {"in quiet", {"museum", "in the museum", "to the museum",
     "old pictures hung on the walls"}},
    {"in quiet", {"station", "at the station", "to the station",
     "a long train waited with open doors"}},
    {"in quiet", {"barn", "in the barn", "to the barn", "the hay was dry and warm"}},
};

static const cm_word spots[] = {
    {"in", {"under the bed"}}, {"in", {"behind the sofa"}}, {"in", {"under the table"}},
    {"in", {"behind the door"}}, {"in", {"in the cupboard"}},
    {"in", {"behind the curtain"}}, {"in", {"on the shelf"}}, {"in", {"under the stairs"}},
    {"in", {"next to the stove"}}, {"in", {"in the big box"}},
    {"out", {"behind the tree"}}, {"out", {"under the bench"}}, {"out", {"in the bushes"}},
    {"out", {"behind the wall"}}, {"out", {"next to the gate"}},
    {"out", {"under the bridge"}}, {"out", {"behind the rock"}},
    {"out", {"in the tall grass"}}, {"out", {"near the fence"}},
    {"out", {"beside the path"}},
};

/* with its article; the tag says which kinds it is made of */
static const cm_word dishes[] = {
    {"egg", {"a cake", "the cake"}}, {"egg", {"an omelet", "the omelet"}},
    {"egg", {"a pudding", "the pudding"}},
    {"fruit", {"a fruit salad", "the fruit salad"}}, {"fruit", {"a pie", "the pie"}},
    {"fruit", {"some jam", "the jam"}},
    {"cook", {"a soup", "the soup"}}, {"cook", {"a stew", "the stew"}},
    {"cook", {"a salad", "the salad"}},
};

/* adjective, how it starts, what helps, what it does */
static const cm_word weathers[] = {
    {"bad wet", {"rainy", "it began to rain", "an umbrella", "the rain"}},
    {"bad cold", {"snowy", "it began to snow", "warm mittens", "the snow"}},
    {"bad", {"windy", "a strong wind began to blow", "a thick jacket", "the wind"}},
    {"bad wet", {"stormy", "a storm came up", "a raincoat", "the storm"}},
    {"good", {"sunny", "the sun came out", "a sun hat", "the sun"}},
    {"good", {"warm", "the air grew warm", "a light shirt", "the warm air"}},
};

static const cm_word moods[] = {
    {"good", {"happy"}}, {"good", {"glad"}}, {"good", {"proud"}}, {"good", {"cheerful"}},
    {"good", {"pleased"}}, {"bad", {"sad"}}, {"bad", {"worried"}}, {"bad", {"upset"}},
    {"tired", {"tired"}}, {"tired", {"sleepy"}},
};

static const cm_word times[] = {
    {"", {"one morning"}}, {"", {"one day"}}, {"", {"one afternoon"}},
    {"weekday", {"on Monday"}}, {"weekday", {"on Tuesday"}}, {"weekday", {"on Friday"}},
    {"weekday", {"on Saturday"}}, {"weekday", {"on Sunday"}}, {"", {"last week"}},
    {"", {"one day in spring"}}, {"", {"one day in summer"}}, {"", {"early one morning"}},
};

static const cm_word rides[] = {
    {"", {"bus"}}, {"", {"train"}}, {"", {"bike"}}, {"", {"boat"}}, {"", {"tram"}},
};

/* what one does, what one did */
static const cm_word chores[] = {
    {"", {"wash the dishes", "washed the dishes"}},
    {"", {"sweep the floor", "swept the floor"}},
    {"", {"water the plants", "watered the plants"}},
    {"", {"carry the wood", "carried the wood"}},
    {"", {"fold the clothes", "folded the clothes"}},
    {"", {"clean the windows", "cleaned the windows"}},
    {"", {"set the table", "set the table"}},
    {"", {"paint the fence", "painted the fence"}},
    {"", {"rake the leaves", "raked the leaves"}},
    {"", {"feed the hens", "fed the hens"}},
};

static const cm_word games[] = {
    {"", {"tag", "chased each other"}}, {"", {"chess", "moved the pieces"}},
    {"", {"football", "kicked the ball"}}, {"", {"cards", "laughed a lot"}},
    {"", {"pirates", "sailed the seven seas"}}, {"", {"school", "took turns as teacher"}},
    {"", {"catch", "threw and caught"}}, {"", {"shop", "sold leaves and stones"}},
};

const char *const cm_numbers[CM_NUMBER_WORDS] = {
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen",
    "eighteen", "nineteen", "twenty"};

#define ROWS(w) w, (int)(sizeof w / sizeof *w)
static const cm_lexicon lexicon[CM_N_TYPES] = {
    [CM_PERSON] = {"ABCD", {"name", "boy", "he", "him", "his"}, ROWS(persons)},
    [CM_THING] = {"XY", {"noun"}, ROWS(things)},
    [CM_KIND] = {"KL$", {"one", "many"}, ROWS(kinds)},
    [CM_ANIMAL] = {"NO", {"one", "many", "eats", "does"}, ROWS(animals)},
    [CM_PLACE] = {"PQ", {"noun", "at", "to", "scene"}, ROWS(places)},
    [CM_SPOT] = {"HIJ", {"at"}, ROWS(spots)},
    [CM_DISH] = {"F", {"dish", "the"}, ROWS(dishes)},
    [CM_WEATHER] = {"W", {"adj", "began", "gear", "it"}, ROWS(weathers)},
    [CM_MOOD] = {"M", {"adj"}, ROWS(moods)},
    [CM_TIME] = {"T", {"when"}, ROWS(times)},
    [CM_RIDE] = {"R", {"ride"}, ROWS(rides)},
    [CM_CHORE] = {"G", {"do", "did"}, ROWS(chores)},
    [CM_GAME] = {"Z", {"game", "did"}, ROWS(games)},
    [CM_NUMBER] = {"abcdefghijklmnopqrstuvwxyz", {NULL}, NULL, 0},
};

const cm_lexicon *cm_lex(cm_word_type t) { return &lexicon[t]; }

static unsigned char type_of[128]; /* of a letter: the type + 1 */
__attribute__((constructor)) static void fill_type_of(void) {
    for (int t = 0; t < CM_N_TYPES; t++)
        for (const char *p = lexicon[t].letters; *p; p++)
            type_of[(unsigned char)*p] = (unsigned char)(t + 1);
}

cm_word_type cm_type_of(char var) {
    int t = type_of[var & 127];
    CM_ASSERT(t, "no type has the variable '%c'", var);
    return (cm_word_type)(t - 1);
}

int cm_n_values(cm_word_type t) {
    if (t == CM_NUMBER) return CM_NUMBER_MAX + 1;
    return t == CM_THING ? lexicon[t].n * cm_n_colours : lexicon[t].n;
}

bool cm_has_tag(cm_word_type t, int value, const char *tag, size_t n) {
    if (t == CM_THING) value /= cm_n_colours;
    for (const char *p = lexicon[t].word[value].tags; *p; p += *p == ' ') {
        size_t len = strcspn(p, " ");
        if (len == n && memcmp(p, tag, n) == 0) return true;
        p += len;
    }
    return false;
}
