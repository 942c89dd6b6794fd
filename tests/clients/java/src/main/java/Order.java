/** What a scenario is asked to do. */
final class Order {
    final String nameserver;
    final String topic;
    final String group;
    final int count;
    /** Tags as `A || B`, or `sql:` and an SQL92 expression. */
    final String subscription;
    /** After so many seconds the program gives up. */
    final long seconds;

    Order(String nameserver, String topic, String group, int count, String subscription) {
        this.nameserver = nameserver;
        this.topic = topic;
        this.group = group;
        this.count = count;
        this.subscription = subscription;
        String limit = System.getenv("CLIENT_SECONDS");
        this.seconds = limit == null ? 60 : Long.parseLong(limit);
    }

    /** The tag of the message with this number. */
    static String tag(int number) {
        return new String[] {"TagA", "TagB", "TagC"}[number % 3];
    }

    static void expect(boolean holds, String otherwise) {
        if (!holds) {
            throw new IllegalStateException(otherwise);
        }
    }
}
