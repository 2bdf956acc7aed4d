package wsisam

/** An error that the user can fix; its message says how. */
class ServerException extends IOException {
    ServerException(String message) { super(message) }
}
